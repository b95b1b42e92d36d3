"""What happened to a model is told in sentences, from facts, and also where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from modelgrid.cli.account import account
from modelgrid.cli.clauses import lasting
from modelgrid.cli.sentences import Moment, sentence
from modelgrid.cli.story import Chapter, tell
from modelgrid.spec import Event
from modelgrid.spec.reason import Cause, Reason

MIB = 2**20


def clock(at: float) -> str:
    return f"<{at:g}>"


def event(at: float, what: str, why: str = "", reason: Reason | None = None, replica: str | None = "mine-1") -> Event:
    return Event(at, "mine", replica, what, why, reason)


def lines(events: Sequence[Event]) -> list[str]:
    return [line.text for chapter in tell(events, clock) for line in chapter.lines]


def said(what: str, reason: Reason | None = None, why: str = "because it is so", *before: Event) -> str:
    return sentence(Moment(event(100.0, what, why, reason), before, clock))[0]


LIFE = (
    event(
        10.0,
        "start",
        "requests waited for it",
        Reason(
            cause=Cause.REQUEST,
            waiting=1,
            devices=("gpu0",),
            memory_bytes=14 * 1024 * MIB,
            free_bytes=20 * 1024 * MIB,
        ),
    ),
    event(48.0, "ready", "", Reason(phases={"queued": 2.0, "spawn": 0.1, "load": 30.0, "first_request": 8.0})),
    event(
        400.0, "drain", "", Reason(cause=Cause.ROOM, other="mistral", waiting=3, waited_s=5.2, in_flight=2, idle_s=0.0)
    ),
    event(402.0, "stop", "", Reason(in_flight=0)),
    event(402.4, "gone", "", Reason(memory_bytes=14 * 1024 * MIB)),
)


def test_a_life_is_told_from_its_facts() -> None:
    (chapter,) = tell(LIFE, clock)
    assert (chapter.replica, chapter.place) == ("mine-1", " on gpu0")
    assert [(line.at, line.text) for line in chapter.lines] == [
        (
            10.0,
            "modelgrid started it on gpu0, because a request came for it while no replica was running. It needed "
            "14.0 GiB of memory, and 20.0 GiB were free there.",
        ),
        (
            48.0,
            "It was ready for requests after 38 s: 30 s loading the model, 8 s answering a first request as a test.",
        ),
        (
            400.0,
            "modelgrid sent it no more requests, to make room for mistral, for which 3 requests had waited up to "
            "5.2 s. Nothing that was idle would have been enough. Its 2 requests in progress could finish first.",
        ),
        (402.0, "Its 2 requests had ended after 2 s, so it was stopped."),
        (402.4, "Its process was gone 0.4 s later, and its memory (14.0 GiB) was free again."),
    ]


def test_a_life_without_facts_is_told_by_what_was_written_down() -> None:
    bare = [replace(one, reason=None, why=why) for one, why in zip(LIFE, ("a", "b", "c.", "d", "e"), strict=True)]
    assert lines(bare) == [
        "modelgrid started it: a.",
        "It was ready for requests after 38 s.",
        "modelgrid sent it no more requests: c.",
        "It had no request in progress, so it was stopped.",
        "Its process was gone 0.4 s later, and its memory was free again.",
    ]


@pytest.mark.parametrize("first", range(1, len(LIFE)))
def test_a_life_of_which_only_the_end_is_known_is_told_too(first: int) -> None:
    told = lines(LIFE[first:])
    assert len(told) == len(LIFE) - first
    assert all(text.endswith(".") and "None" not in text for text in told)


@pytest.mark.parametrize("cause", [None, "of another version", *Cause])
@pytest.mark.parametrize("what", ["start", "wake", "drain", "stop", "sleep", "refuse", "adopt", "failed", "ready"])
def test_every_cause_makes_a_whole_sentence_with_whatever_is_known(what: str, cause: str | None) -> None:
    text = said(what, Reason(cause=cause))
    assert text[0].isupper() or text.startswith("modelgrid")
    assert text.endswith(".")
    assert "None" not in text
    assert "  " not in text


@pytest.mark.parametrize(
    ("what", "reason", "told"),
    [
        (
            "start",
            Reason(cause=Cause.REQUEST, waiting=3, waited_s=4.0, devices=("gpu0", "gpu1"), machine="node-2"),
            "modelgrid started it on gpu0 and gpu1 of machine node-2, because 3 requests were waiting for it, the "
            "first of them for 4 s, while no replica was running.",
        ),
        (
            "start",
            Reason(cause=Cause.LOAD, in_flight=30, waiting=4, replicas=2, target=16, devices=("cpu",)),
            "modelgrid started it in main memory, because there were 30 requests in progress and 4 waiting for 2 "
            "replicas, where each should have 16 at most (scaling.target).",
        ),
        (
            "start",
            Reason(cause=Cause.OBJECTIVE, limit_s=0.5),
            "modelgrid started it, because answers began later than the model's objective of 500ms allows.",
        ),
        (
            "start",
            Reason(cause=Cause.KEPT, failures=2),
            "modelgrid started it, because the configuration says that it is always running (scaling.min). It had "
            "failed twice before.",
        ),
        (
            "drain",
            Reason(cause=Cause.IDLE, idle_s=900.0, limit_s=900.0, in_flight=0),
            "modelgrid sent it no more requests, because it had had no request for 15 min, where 15 min are allowed "
            "(scaling.idle).",
        ),
        (
            "drain",
            Reason(cause=Cause.ROOM, other="big", waiting=1, waited_s=0.3, idle_s=240.0, then="sleep"),
            "modelgrid sent it no more requests, to put it to sleep, to make room for big, for which 1 request had "
            "waited up to 0.3 s. It was the one that is missed least: it had had no request for 4 min.",
        ),
        (
            "stop",
            Reason(cause=Cause.BY_HAND),
            "modelgrid broke off its start, because somebody asked for it by hand (modelgrid model unload).",
        ),
        (
            "failed",
            Reason(failures=3, retry_at=104.0, log=("Loading", "MemoryError")),
            "It failed: because it is so. The next try may be made at <104>. It was failure 3 in a row, and each one "
            "makes the wait longer. The last lines that its engine wrote:",
        ),
        (
            "refuse",
            Reason(cause=Cause.FAILING, failures=3, retry_at=104.0),
            "As it had failed 3 times in a row, requests for it were answered with an error until the next try at "
            "<104>.",
        ),
        (
            "adopt",
            Reason(cause=Cause.CHANGED),
            "modelgrid found it running, but no model is configured to run like that any more: it was stopped.",
        ),
        ("found", None, "modelgrid's controller was started again and found it still running, so it goes on."),
        ("new", None, "New: because it is so."),
    ],
)
def test_a_sentence_has_the_numbers_that_were_decided_on(what: str, reason: Reason | None, told: str) -> None:
    assert said(what, reason) == told


def test_a_failure_is_told_with_what_its_engine_wrote() -> None:
    with_facts = event(2.0, "failed", "exited with code 1\nthe tail", Reason(log=("one", "two")))
    assert sentence(Moment(with_facts, (), clock))[1] == ("one", "two")
    without = event(2.0, "failed", "exited with code 1\nits last lines:\n  one")
    assert sentence(Moment(without, (event(1.0, "start"),), clock)) == (
        "Its start failed after 1 s: exited with code 1.",
        ("its last lines:", "  one"),
    )


def test_a_start_that_failed_after_it_was_ready_is_no_failed_start() -> None:
    assert said("failed", None, "gone", event(1.0, "start"), event(2.0, "ready")) == "It failed: gone."


def test_a_sleep_and_a_wake_are_told_with_how_long_they_took() -> None:
    night = [
        event(10.0, "drain", "", Reason(cause=Cause.IDLE, then="sleep")),
        event(11.0, "sleep", "idle"),
        event(12.5, "asleep"),
        event(60.0, "wake", "", Reason(cause=Cause.REQUEST, waiting=1)),
        event(62.0, "ready"),
    ]
    assert lines(night)[1:] == [
        "modelgrid told it to sleep, which frees most of its GPU memory and is undone faster than a stop.",
        "It was asleep after 1.5 s, and most of its GPU memory was free.",
        "modelgrid woke it, because a request came for it while no replica was running.",
        "It was awake and answered requests again after 2 s.",
    ]


def test_replicas_are_told_one_after_the_other_and_what_is_of_none_stands_between() -> None:
    both = [
        event(1.0, "load", replica=None),
        event(2.0, "start"),
        event(3.0, "start", replica="mine-2"),
        event(4.0, "ready"),
        event(5.0, "unload", replica=None),
        event(6.0, "ready", replica="mine-2"),
        event(7.0, "refuse", replica=None),
    ]
    told = [(chapter.replica, [line.what for line in chapter.lines]) for chapter in tell(both, clock)]
    assert told == [
        (None, ["load"]),
        ("mine-1", ["start", "ready"]),
        ("mine-2", ["start", "ready"]),
        (None, ["unload", "refuse"]),
    ]


def test_what_is_refused_again_and_again_is_told_once_with_the_count() -> None:
    (chapter,) = tell([event(float(at), "refuse", "too large", replica=None) for at in range(10, 24)], clock)
    (line,) = chapter.lines
    assert (line.at, line.until, line.events) == (10.0, 23.0, 14)
    assert line.text.endswith("too large. This happened 14 times, the last at <23>.")


def crash(number: int, why: str = "exited with code 1") -> list[Event]:
    at, name = number * 10.0, f"mine-{number}"
    return [
        event(at, "start", replica=name),
        event(at + 1, "failed", why, replica=name),
        event(at + 2, "gone", replica=name),
    ]


def names(chapters: Sequence[Chapter]) -> list[tuple[str | None, int]]:
    return [(chapter.replica, chapter.folded) for chapter in chapters]


def test_of_replicas_that_failed_alike_the_last_is_told_whole_and_no_event_is_lost() -> None:
    refused = [event(25.0, "refuse", "failing", replica=None), event(45.0, "refuse", "failing", replica=None)]
    loop = sorted([one for number in (1, 2, 3, 4) for one in crash(number)] + refused, key=lambda one: one.at)
    told = tell(loop, clock)
    assert names(told) == [("mine-4", 3), (None, 0)]
    assert told[0].lines[0].text == (
        "Before this one 3 replicas (mine-1 to mine-3) failed in the same way, and requests were answered with an "
        "error in between."
    )
    assert [line.what for line in told[0].lines[1:]] == ["start", "failed", "gone"]
    assert sum(line.events for chapter in told for line in chapter.lines) == len(loop)


def test_replicas_that_failed_in_other_ways_are_told_each() -> None:
    loop = [*crash(1), *crash(2, "killed"), *crash(3), *crash(4)]
    assert names(tell(loop, clock)) == [("mine-1", 0), ("mine-2", 0), ("mine-3", 0), ("mine-4", 0)]


def test_the_account_of_all_models_tells_each_start_and_each_end_once() -> None:
    other = [replace(one, model="other", replica="other-1", at=one.at + 1) for one in LIFE[:1]]
    told = account(sorted([*LIFE, *other], key=lambda one: one.at), clock)
    assert [(entry.at, entry.model) for entry in told] == [(10.0, "mine"), (11.0, "other"), (400.0, "mine")]
    assert told[0].text.endswith("while no replica was running. It was ready 38 s later.")
    assert told[1].text.endswith(" It is not ready yet.")
    assert told[2].text.startswith("It was stopped, to make room for mistral")


def test_the_account_counts_what_is_the_same() -> None:
    many = [event(float(at), "drain", "c", replica=f"mine-{at}") for at in range(3)]
    refused = [event(float(10 + at), "refuse", "too large", replica=None) for at in range(2)]
    assert [entry.text for entry in account([*many, *refused], clock)] == [
        "It was stopped: c. This happened 3 times, the last at <2>.",
        "From then on requests for it were answered with an error: too large. This happened 2 times, the last at <11>.",
    ]
    at_once = [replace(one, at=5.0) for one in many]
    assert [entry.text for entry in account(at_once, clock)] == ["It was stopped: c. That holds for 3 replicas of it."]


def test_the_account_tells_a_loop_of_crashes_in_two_lines() -> None:
    failing = Reason(cause=Cause.FAILING, failures=3, retry_at=9.0)
    refused = [event(number * 10.0 + 3, "refuse", "", failing, replica=None) for number in (1, 2, 3)]
    loop = sorted([one for number in (1, 2, 3) for one in crash(number)] + refused, key=lambda one: one.at)
    assert [entry.text for entry in account(loop, clock)] == [
        "It was started, and failed: exited with code 1. This happened 3 times, the last at <30>.",
        "As it failed again and again, requests for it were answered with an error until the next try. This happened "
        "3 times, the last at <33>.",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0.1 s"),
        (0.42, "0.4 s"),
        (2.0, "2 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_told_as_one_reads_them_aloud(seconds: float, told: str) -> None:
    assert lasting(seconds) == told


def test_a_replica_that_is_found_again_and_again_is_told_of_once() -> None:
    found = [event(60.0 + number, "found", "the controller was started again") for number in range(12)]
    (chapter,) = tell((*LIFE[:2], *found, *LIFE[2:]), clock)
    told = [line.text for line in chapter.lines if line.what == "found"]
    assert len(told) == 1
    assert told[0].endswith("so it goes on. This happened 12 times, the last at <71>.")

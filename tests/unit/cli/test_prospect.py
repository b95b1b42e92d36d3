"""What a model is, why, and what would have to happen for that to change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.cli.prospect import headline, prospects
from modelgrid.spec import Event, ModelStatus, ReplicaStatus, Why
from modelgrid.spec.reason import Cause, Reason

MIB = 2**20
READY = Event(700.0, "mine", "mine-1", "ready", "", Reason(phases={"queued": 9.0, "load": 30.0, "first_request": 8.0}))
DRAIN = Event(900.0, "mine", "mine-1", "drain", "", Reason(cause=Cause.IDLE, idle_s=900.0, limit_s=900.0))


def clock(at: float) -> str:
    return f"<{at:g}>"


def told(model: ModelStatus, *replicas: ReplicaStatus, events: tuple[Event, ...] = (), **more: object) -> list[str]:
    answer = replace(Why(1000.0, model, replicas, events), **more)  # type: ignore[arg-type]  # fields of Why
    state, reason, _ = headline(answer, clock)
    return [f"{state}{reason}", *prospects(answer, clock)]


def test_a_ready_model_says_why_it_was_started_and_when_it_goes(model: ModelStatus, replica: ReplicaStatus) -> None:
    start = Event(600.0, "mine", "mine-7", "start", "", Reason(cause=Cause.REQUEST, waiting=1))
    idle = replace(model, in_flight=0, idle_s=900.0)
    assert told(idle, replica, events=(start,)) == [
        "ready: it answers requests. It was started, because a request came for it while no replica was running.",
        "After 15 min without a request it is stopped, at <1896> at the earliest; before that only if another model "
        "needs its memory.",
    ]
    busy = told(replace(model, idle_s=900.0), replica)
    assert busy[1].startswith("After 15 min without a request it is stopped; before that")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"wish": "loaded"}, "It stays loaded, as somebody asked for that by hand, until: modelgrid model unload."),
        ({"min": 2}, "The configuration keeps 2 replicas running, also without requests (scaling.min)."),
        (
            {"wish": "unloaded"},
            "Somebody asked by hand that it be unloaded, which happens as soon as its requests are ",
        ),
    ],
)
def test_a_ready_model_says_what_keeps_it(
    model: ModelStatus, replica: ReplicaStatus, changes: dict[str, object], line: str
) -> None:
    assert told(replace(model, **changes), replica)[1].startswith(line)  # type: ignore[arg-type]  # fields of it


def test_a_start_says_how_long_it_has_taken_what_it_does_and_what_it_took_before(
    model: ModelStatus, replica: ReplicaStatus
) -> None:
    starting = replace(
        replica, state="starting", since=988.0, step="environment: 12 of 80", phases={"environment": 9.0}
    )
    assert told(replace(model, state="starting", why="kept"), starting, events=(READY,)) == [
        "starting: kept.",
        "Its start has taken 12 s so far; now it is preparing the environment that it runs in (12 of 80).",
        "Its last start took 38 s.",
    ]


def test_a_cold_model_says_why_it_went_and_what_starts_it(model: ModelStatus, replica: ReplicaStatus) -> None:
    cold = replace(model, state="cold", why="stopped: no request", load_s=41.0)
    assert told(cold, events=(READY, DRAIN)) == [
        "cold (not loaded): it was stopped at <900>, because it had had no request for 15 min, where 15 min are "
        "allowed (scaling.idle).",
        "The next request for it starts it.",
        "Its last start took 41 s.",
    ]
    leaving = replace(replica, id="mine-1", state="draining")
    assert told(cold, leaving, events=(DRAIN,))[0].startswith("cold (not loaded): it is being stopped since <900>")


def test_a_model_that_waits_for_memory_says_who_holds_it_and_when_it_comes_free(
    model: ModelStatus, replica: ReplicaStatus
) -> None:
    waiting = replace(model, state="cold", waiting=2, waiting_since=996.9, memory_bytes=400 * MIB)
    others = tuple(
        replace(replica, id=f"{name}-1", model=name, memory_bytes=size * MIB, state=state, in_flight=busy)
        for name, size, state, busy in (
            ("kept", 10, "ready", 0),
            ("busy", 200, "ready", 2),
            ("going", 150, "draining", 1),
            ("ended", 40, "stopping", 0),
            ("small", 1, "ready", 0),
        )
    )
    assert told(waiting, free_bytes=100 * MIB, others=others, kept=("kept",)) == [
        "cold (not loaded), and has yet to be started.",
        "2 requests wait for it, the first of them for 3.1 s now.",
        "It waits for memory: it needs 400 MiB, and 100 MiB are free.",
        "200 MiB are held by busy, which is running with 2 requests in progress.",
        "150 MiB are held by going, which goes as soon as its requests are answered (1 left).",
        "40.0 MiB are held by ended, which is on its way out.",
        "10.0 MiB are held by kept, which is kept loaded.",
        "The rest is held by 1 other replica.",
        "What is idle makes room once as many requests wait here as would miss it. What is busy does so once a request "
        "has waited for 5 s, and once it has served for 3 times as long as its own start took.",
    ]
    assert told(waiting, free_bytes=400 * MIB)[2] == "There is memory for it, so it is about to be started."
    unsized = replace(waiting, memory_bytes=None)
    assert told(unsized)[2] == "How much memory it needs is still being found out."


def test_a_failed_model_says_when_it_is_tried_again(model: ModelStatus) -> None:
    failed = replace(model, state="failed", why="exited with code 1\nlog:\n one", retry_at=1004.0)
    assert told(failed) == [
        "failed: exited with code 1.",
        "It is tried again at <1004>, in 4 s, when a request asks for it.",
    ]
    assert told(replace(failed, waiting=1))[2] == "It is tried again at <1004>, in 4 s."
    assert told(replace(failed, retry_at=999.0))[1] == "The next request for it is a new try."


def test_an_unavailable_model_says_what_its_callers_hear(model: ModelStatus) -> None:
    assert told(replace(model, state="unavailable", why="cannot place mine: it needs 2.0 GiB")) == [
        "unavailable: cannot place mine: it needs 2.0 GiB.",
        "Requests for it are answered with an error as long as that holds.",
    ]


def test_a_stand_in_says_that_it_is_one(model: ModelStatus, replica: ReplicaStatus) -> None:
    assert told(replace(model, note="a stand-in made on the spot"), replica)[-1] == "Note: a stand-in made on the spot."

"""When callers are told instead of kept waiting, and in which words."""

from __future__ import annotations

import pytest

from modelgrid.planner import backoff, plan, retry_at
from modelgrid.spec import (
    Action,
    Drain,
    Failures,
    ModelName,
    Refuse,
    Replica,
    ReplicaId,
    Start,
    Unknown,
    Wish,
    shares_of,
)
from unit.planner.fleets import NOW, fleet, model, replica

A = ModelName("a")


def test_a_model_larger_than_the_machine_is_refused() -> None:
    why = "cannot place a: it needs 11 B, models may take 10 B (try: a smaller model, or raise machine.memory)"
    assert plan(fleet([model(memory_bytes=11)])) == [Refuse(A, why, 30.0)]


def test_a_model_of_unknown_size_is_refused() -> None:
    lost = model(memory_bytes=Unknown("the hub does not answer"), waiting=1)
    assert plan(fleet([lost])) == [Refuse(A, "cannot place a: the hub does not answer", 30.0)]


def test_what_is_kept_and_in_the_way_is_named() -> None:
    kept = model("b", 8, min=1)
    why = (
        "cannot place a: it needs 4 B, and models that are kept loaded hold 8 B of 10 B "
        "(try: modelgrid model unload, or scaling.min: 0 for one of them)"
    )
    assert plan(fleet([model(waiting=1), kept], [replica("b-1", memory_bytes=8)])) == [Refuse(A, why, 30.0)]


def test_only_the_floor_is_kept_for_good() -> None:
    kept = model("b", 4, min=1, max=2)
    given = [replica("b-1", in_flight=1), replica("b-2", in_flight=1)]
    assert plan(fleet([model(memory_bytes=6, waiting=1), kept], given)) == []
    why = (
        "cannot place a: it needs 7 B, and models that are kept loaded hold 4 B of 10 B "
        "(try: modelgrid model unload, or scaling.min: 0 for one of them)"
    )
    assert plan(fleet([model(memory_bytes=7, waiting=1), kept], given)) == [Refuse(A, why, 30.0)]


def test_who_nobody_waits_for_is_not_refused_for_what_is_kept() -> None:
    assert plan(fleet([model(), model("b", 8, min=1)], [replica("b-1", memory_bytes=8)])) == []


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        (Failures(2, NOW - 1, "it broke"), []),
        (Failures(3, NOW - 1, "it broke"), [Refuse(A, "a failed 3 times in a row: it broke", 3.0)]),
        (Failures(1, NOW - 0.5, "late", hopeless=True), [Refuse(A, "a failed once: late", 0.5)]),
        (
            Failures(3, NOW - 4, "it broke"),
            [Start(ReplicaId("a-7"), A, shares_of(4), "requests waited for it, again after: it broke")],
        ),
        (
            Failures(1, NOW - 1, "late", hopeless=True),
            [Start(ReplicaId("a-7"), A, shares_of(4), "requests waited for it, again after: late")],
        ),
    ],
    ids=["few: waited for", "many: told", "hopeless: told", "many: tried again", "hopeless: tried again"],
)
def test_failures_are_told_until_the_next_try(failures: Failures, expected: list[Action]) -> None:
    assert plan(fleet([model(waiting=1, failures=failures)])) == expected


def test_a_model_that_serves_is_not_refused_for_what_happened_before() -> None:
    failures = Failures(5, NOW - 1, "it broke")
    assert plan(fleet([model(failures=failures)], [replica()])) == []


@pytest.mark.parametrize(
    ("count", "delay_s"), [(0, 0.0), (1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, 300.0), (10_000, 300.0)]
)
def test_pauses_double_up_to_five_minutes(count: int, delay_s: float) -> None:
    assert retry_at(Failures(count, NOW, "")) == NOW + delay_s


def test_one_more_failure() -> None:
    assert backoff.failed(Failures(2, 1.0, "old", True), 9.0, "new", hopeless=False) == Failures(3, 9.0, "new", False)


@pytest.mark.parametrize("given", [replica("b-1", memory_bytes=8, in_flight=1), replica("b-1", memory_bytes=8)])
def test_what_is_only_busy_is_waited_for_or_drained(given: Replica) -> None:
    actions = plan(fleet([model(waiting=1), model("b", 8)], [given]))
    assert not [action for action in actions if not isinstance(action, Drain)]


def test_what_was_loaded_by_hand_is_in_the_way_as_well() -> None:
    kept = model("b", 8, wish=Wish.LOADED)
    [refusal] = plan(fleet([model(waiting=1), kept], [replica("b-1", memory_bytes=8)]))
    assert isinstance(refusal, Refuse)
    assert "kept loaded hold 8 B of 10 B" in refusal.why

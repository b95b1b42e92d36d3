"""Whose memory is worth having: who waits, against who would be missed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner import plan
from modelgrid.planner.evict import LONGEST_WAIT_S, WEIGHT
from modelgrid.planner.grow import LEVEL_S
from modelgrid.spec import Action, Drain, Model, Rate, ReplicaId, Start, shares_of
from modelgrid.spec.rate import FADE_S
from unit.planner.fleets import NOW, fleet, model, replica

LOAD_S = 10.0


def asked_for(given: Model, per_s: float, pause_s: float = 0.0, load_s: float | None = LOAD_S) -> Model:
    """`given`, with `per_s` requests still expected a second when nobody pauses."""
    return replace(given, rate=Rate(per_s + 1 / FADE_S, NOW - pause_s), load_s=load_s)


def important(given: Model, priority: int) -> Model:
    return replace(given, spec=replace(given.spec, priority=priority))


def drained(actions: list[Action]) -> list[str]:
    return [action.replica for action in actions if isinstance(action, Drain)]


@pytest.mark.parametrize(("waiting", "expected"), [(19, []), (21, ["b-1"])])
def test_as_many_must_wait_as_would_have_to_wait_for_two_swaps(waiting: int, expected: list[str]) -> None:
    asking = replace(model(memory_bytes=8, waiting=waiting, waited_s=6.0, target=99), load_s=LOAD_S)
    busy = asked_for(model("b", 8), 1.0)
    assert drained(plan(fleet([asking, busy], [replica("b-1", memory_bytes=8)]))) == expected


def test_one_request_that_is_long_past_holds_nobody_up() -> None:
    asking = replace(model(memory_bytes=8, waiting=1), load_s=60.0)
    once = replace(model("b", 8), rate=Rate().counted(1, NOW - 1.0), load_s=60.0)
    assert drained(plan(fleet([asking, once], [replica("b-1", memory_bytes=8)]))) == ["b-1"]


def test_a_pause_that_is_long_for_it_says_that_nobody_comes_any_more() -> None:
    asking = replace(model(memory_bytes=8, waiting=1), load_s=LOAD_S)
    for pause_s, expected in ((0.5, []), (8.0, ["b-1"])):
        other = asked_for(model("b", 8), 1.0, pause_s)
        assert drained(plan(fleet([asking, other], [replica("b-1", memory_bytes=8)]))) == expected


def test_nobody_waits_for_ever_however_much_another_one_is_missed() -> None:
    other = asked_for(model("b", 8), 100.0)
    for waited_s, expected in ((39.0, []), (40.0, ["b-1"])):  # two swaps of two loads of ten seconds
        asking = replace(model(memory_bytes=8, waiting=1, waited_s=waited_s), load_s=LOAD_S)
        assert drained(plan(fleet([asking, other], [replica("b-1", memory_bytes=8)]))) == expected
    quick = replace(asking, load_s=1.0, waiting_since=NOW - LONGEST_WAIT_S)
    other = replace(other, load_s=1.0)
    assert drained(plan(fleet([quick, other], [replica("b-1", memory_bytes=8)]))) == ["b-1"]


def test_who_is_missed_least_goes_not_who_was_used_longest_ago() -> None:
    asking = replace(model(memory_bytes=5, waiting=50), load_s=LOAD_S)
    often, seldom = asked_for(model("b", 5), 1.0), asked_for(model("c", 5), 0.1)
    replicas = [replica("b-1", memory_bytes=5, unused_s=9.0), replica("c-2", memory_bytes=5, unused_s=1.0)]
    assert drained(plan(fleet([asking, often, seldom], replicas))) == ["c-2"]


def test_what_takes_long_to_load_is_missed_more() -> None:
    asking = replace(model(memory_bytes=5, waiting=99, target=99), load_s=LOAD_S)
    slow, quick = asked_for(model("b", 5), 0.1, load_s=300.0), asked_for(model("c", 5), 0.1, load_s=5.0)
    replicas = [replica("b-1", memory_bytes=5, unused_s=9.0), replica("c-2", memory_bytes=5, unused_s=1.0)]
    assert drained(plan(fleet([asking, slow, quick], replicas))) == ["c-2"]


def test_a_higher_priority_weighs_more_and_does_not_wait_for_a_turn() -> None:
    other = asked_for(model("b", 8), 0.9 * WEIGHT / (2 * LOAD_S))
    busy = replica("b-1", memory_bytes=8, in_flight=3, in_state_s=6.0, load_s=100.0)
    for priority, expected in ((0, []), (1, ["b-1"])):
        asking = important(replace(model(memory_bytes=8, waiting=1, waited_s=1.0), load_s=LOAD_S), priority)
        assert drained(plan(fleet([asking, other], [busy]))) == expected


def test_a_lower_priority_gives_way_first() -> None:
    asking = replace(model(memory_bytes=5, waiting=1), load_s=LOAD_S)
    replicas = [replica("b-1", memory_bytes=5, unused_s=9.0), replica("c-2", memory_bytes=5, unused_s=1.0)]
    assert drained(plan(fleet([asking, important(model("b", 5), 1), model("c", 5)], replicas))) == ["c-2"]


def test_memory_goes_by_priority_then_to_who_waits_longest_or_is_many() -> None:
    def first(*models: Model) -> str:
        [start] = [action for action in plan(fleet(models)) if isinstance(action, Start)]
        assert start.shares == shares_of(8)
        return start.model

    old, new = model("a", 8, waiting=1, waited_s=30.0), model("b", 8, waiting=1, waited_s=10.0)
    assert first(old, new) == "a"
    assert first(old, important(new, 1)) == "b"
    assert first(old, model("b", 8, waiting=9, waited_s=10.0, target=99)) == "b"
    assert first(model("a", 8, waiting=1, waited_s=2 * LEVEL_S), important(new, 1)) == "a"
    served = model("a", 8, waiting=1, waited_s=2 * LEVEL_S, last_used=NOW - 5.0)
    assert first(served, new) == "b"  # a backlog does not bring it back at once
    assert first(model("a", 8, waiting=1, waited_s=71.0), model("b", 8, waiting=999, waited_s=10.0, target=999)) == "a"


def test_what_is_kept_loaded_takes_no_account_of_who_is_missed() -> None:
    kept, other = model("a", 8, min=1), asked_for(model("b", 8), 5.0)
    assert drained(plan(fleet([kept, other], [replica("b-1", memory_bytes=8, in_flight=0)]))) == [ReplicaId("b-1")]


def test_one_that_is_asked_for_all_the_time_is_busy_though_it_has_nothing_to_do_now() -> None:
    asking = replace(model(memory_bytes=5, waiting=99, waited_s=6.0, target=99), load_s=LOAD_S)
    hot, cold = asked_for(model("b", 5), 10.0), asked_for(model("c", 5), 0.01)
    replicas = [replica("b-1", memory_bytes=5, in_flight=0), replica("c-2", memory_bytes=5, in_flight=1)]
    assert drained(plan(fleet([asking, hot, cold], replicas))) == ["c-2"]


def test_what_is_to_be_kept_is_loaded_beside_one_that_is_never_idle() -> None:
    kept, endless = model("a", 8, min=1), model("b", 8)
    for ready_s, expected in ((20.0, []), (40.0, ["b-1"])):
        busy = replica("b-1", memory_bytes=8, in_flight=3, in_state_s=ready_s, load_s=10.0)
        assert drained(plan(fleet([kept, endless], [busy]))) == expected
    first, *_ = plan(fleet([kept, model("c", 8, waiting=9, waited_s=500.0)]))
    assert isinstance(first, Start)
    assert first.model == "a"


def test_for_one_more_replica_only_those_leave_whom_nobody_misses() -> None:
    scaled = model(max=2, waiting=9, waited_s=99.0, memory_bytes=5)
    own = replica("a-1", memory_bytes=5, in_flight=8)
    beside = replica("b-2", memory_bytes=5)
    assert drained(plan(fleet([scaled, model("b", 5)], [own, beside]))) == ["b-2"]
    for missed in (asked_for(model("b", 5), 0.2), important(model("b", 5), 1), model("b", 5, min=1)):
        assert plan(fleet([scaled, missed], [own, beside])) == []
    assert plan(fleet([scaled, model("b", 5)], [own, replace(beside, in_flight=1)])) == []
    kept = model(min=2, max=2, memory_bytes=5)
    busy = replica("b-2", memory_bytes=5, in_flight=1)
    assert drained(plan(fleet([kept, model("b", 5)], [own, busy]))) == ["b-2"]

"""What the next controller makes of what an earlier one left: its orders, and times of another clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner import Facts, observe, retry_at
from modelgrid.spec import Failures, ReplicaId, State
from unit.planner.fleets import NOW, fleet, model, replica, running

A = ReplicaId("a-1")


def test_a_start_that_was_lost_with_its_controller_is_no_failure_of_the_model() -> None:
    lap = observe(fleet([model("a")], [replica("a-1", State.STARTING)]), Facts(NOW, inherited=frozenset({A})))
    assert [found.state for found in lap.replicas] == [State.STOPPING]
    assert lap.failures == {"a": Failures()}


def test_a_start_that_the_earlier_controller_has_made_goes_on() -> None:
    seen = {A: running("a-1")}
    before = fleet([model("a")], [replace(replica("a-1", State.STARTING), spawned=None)])
    lap = observe(before, Facts(NOW, seen=seen, inherited=frozenset({A})))
    assert [found.state for found in lap.replicas] == [State.STARTING]


def test_what_was_ready_and_is_gone_has_failed_whoever_started_it() -> None:
    lap = observe(fleet([model("a")], [replica("a-1", State.READY)]), Facts(NOW, inherited=frozenset({A})))
    assert [found.state for found in lap.replicas] == [State.FAILED]


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.DRAINING, State.STOPPING])
def test_no_time_of_a_replica_is_later_than_now_once_the_clock_was_put_back(state: State) -> None:
    known = replica("a-1", state)
    ahead = replace(known, since=NOW + 3600, created=NOW + 3600, last_used=NOW + 3600, ready_at=NOW + 3600)
    seen = {A: running("a-1")}
    (found,) = observe(fleet([model("a")], [ahead]), Facts(NOW, seen=seen, in_flight={A: 0})).replicas
    assert max(found.since, found.created, found.last_used, found.ready_at or 0.0, found.spawned or 0.0) <= NOW


def test_a_back_off_is_no_longer_than_it_was_meant_to_be_once_the_clock_was_put_back() -> None:
    failures = Failures(count=1, last=NOW + 3600, why="exited with code 1")
    lap = observe(fleet([model("a", failures=failures)]), Facts(NOW))
    assert retry_at(lap.failures[model("a").spec.name]) <= NOW + 1

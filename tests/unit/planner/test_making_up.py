"""What makes up for failures, and what doesn't."""

from __future__ import annotations

from modelgrid.planner import Facts, observe
from modelgrid.planner.backoff import STABLE_S
from modelgrid.spec import Failures, Fleet, ReplicaId, State
from unit.planner.fleets import NOW, fleet, model, replica, running


def _ready(for_s: float, failed_s_ago: float) -> Fleet:
    failures = Failures(count=2, last=NOW - failed_s_ago, why="exited with code 1")
    return fleet([model("a", failures=failures, max=2)], [replica("a-1", State.READY, in_state_s=for_s)])


def _look(before: Fleet) -> int:
    seen = {ReplicaId("a-1"): running("a-1")}
    (failures,) = observe(before, Facts(NOW, seen=seen, in_flight={ReplicaId("a-1"): 0})).failures.values()
    return failures.count


def test_a_replica_that_has_stayed_ready_makes_up_for_the_failures_before_it() -> None:
    assert _look(_ready(for_s=STABLE_S, failed_s_ago=STABLE_S + 1)) == 0


def test_one_that_was_ready_all_along_does_not_make_up_for_another_that_fails_beside_it() -> None:
    assert _look(_ready(for_s=10 * STABLE_S, failed_s_ago=1)) == 2

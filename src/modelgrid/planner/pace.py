"""How soon the next lap comes when nothing wakes the controller before."""

from __future__ import annotations

from collections.abc import Sequence

from modelgrid.spec import Replica, State

CALM_LAP_S = 1.0  # when nothing moves
BUSY_LAP_S = 0.1  # while a replica is on its way from one state to another, or somebody waits
ENDING_LAP_S = 0.02  # just after one was told to end: most engines take no longer, and somebody may wait for its memory


def pause_s(replicas: Sequence[Replica], now: float, *, is_wanted: bool) -> float:
    """Seconds to the next lap. `is_wanted`: requests wait for a replica."""
    if is_wanted and (ending := [replica.since for replica in replicas if replica.state is State.STOPPING]):
        return min(BUSY_LAP_S, max(ENDING_LAP_S, (now - max(ending)) / 5))
    return BUSY_LAP_S if is_wanted or any(not replica.is_at_rest for replica in replicas) else CALM_LAP_S

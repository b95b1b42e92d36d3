"""The pure part of the controller: what was seen becomes what is known, and that becomes the next actions."""

from modelgrid.planner.backoff import retry_at
from modelgrid.planner.life import Facts, Lap, apply, observe
from modelgrid.planner.pace import BUSY_LAP_S, pause_s
from modelgrid.planner.plan import plan, wind_down
from modelgrid.planner.reasons import Reasons, with_reasons

__all__ = [
    "BUSY_LAP_S",
    "Facts",
    "Lap",
    "Reasons",
    "apply",
    "observe",
    "pause_s",
    "plan",
    "retry_at",
    "wind_down",
    "with_reasons",
]

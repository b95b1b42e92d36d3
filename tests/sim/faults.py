"""How often what goes wrong in a simulated world: by call, or by tick and process."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Faults:
    """All zero: nothing does."""

    lose_start: float = 0.0  # error, nothing there
    lose_start_reply: float = 0.0  # error, but the process is there
    lose_stop: float = 0.0
    lose_turn: float = 0.0  # to sleep, or to wake
    late_reply: float = 0.0  # an answer comes after what it answers is over, or twice
    list_twice: float = 0.0  # a list is the one of a lap ago
    ignore_stop: float = 0.0
    crash: float = 0.0
    hang: float = 0.0
    grow: float = 0.0  # a process takes more memory than was planned
    never_ready: float = 0.0
    forget: float = 0.0  # an exited process is no longer listed
    blind: float = 0.0  # one runtime's list() answers Unknown for a while
    machine_goes: float = 0.0  # and comes back
    controller_dies: float = 0.0
    store_lost: float = 0.0
    store_fails: float = 0.0  # nothing can be written for a while
    clock_jumps: float = 0.0
    workers_unheard: float = 0.0
    edit: float = 0.0  # somebody changes the configuration
    wish: float = 0.0

    def happens(self, fault: str, dice: random.Random) -> bool:
        """Whether this one comes true now."""
        chance: float = getattr(self, fault)
        return chance > 0.0 and dice.random() < chance


def harsh(how: float) -> Faults:
    """Everything goes wrong; at 1.0 so that what is there mostly gets somewhere."""
    at_one = Faults(
        lose_start=0.1,
        lose_start_reply=0.1,
        lose_stop=0.1,
        lose_turn=0.3,
        late_reply=0.2,
        list_twice=0.05,
        ignore_stop=0.1,
        crash=0.005,
        hang=0.005,
        grow=0.002,
        never_ready=0.05,
        forget=0.1,
        blind=0.01,
        machine_goes=0.005,
        controller_dies=0.03,
        store_lost=0.005,
        store_fails=0.01,
        clock_jumps=0.005,
        workers_unheard=0.1,
        edit=0.005,
        wish=0.01,
    )
    return Faults(**{row.name: min(1.0, getattr(at_one, row.name) * how) for row in fields(Faults)})

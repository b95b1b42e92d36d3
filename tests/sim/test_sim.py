"""The planner against worlds of faults: safety at every tick, liveness at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pytest

from sim.faults import Faults
from sim.making import make_world
from sim.visiting import TROUBLE_TICKS, longest_wait_beside_small_ones_s, visit


def test_worlds_are_safe_at_every_tick_and_live_at_the_end(batch: Sequence[int]) -> None:
    failed = {seed: why for seed in batch if (why := visit(make_world(seed)))}
    assert not failed, "\n".join(f"seed {seed}: {why}" for seed, why in failed.items())


def test_everything_that_may_go_wrong_does_in_the_first_worlds() -> None:
    met: set[str] = set()
    for seed in range(60):
        world = make_world(seed)
        for _ in range(TROUBLE_TICKS):
            world.tick()
        met |= world.grid.met
    actions = {"Start", "Drain", "Sleep", "Wake", "Stop", "Refuse"}
    assert met == actions | {fault.name for fault in fields(Faults)}


@pytest.mark.parametrize("seed", range(5))
def test_a_large_model_gets_its_turn_beside_small_ones_that_take_turns(seed: int) -> None:
    assert longest_wait_beside_small_ones_s(seed) < 70.0


@pytest.mark.parametrize("seed", range(8))
def test_a_world_repeats_itself(seed: int) -> None:
    first, second = make_world(seed), make_world(seed)
    for _ in range(100):
        first.tick()
        second.tick()
    assert first.replicas == second.replicas
    assert first.grid.processes == second.grid.processes

"""Bugs that are planted in the planner, and the loop around it: each is noticed, in the world noted here."""

from __future__ import annotations

import pytest

from sim import planted as bugs
from sim.making import make_world
from sim.planted import BUGS, Plant, planted
from sim.visiting import longest_wait_beside_small_ones_s, visit

# The first world that shows it. Where the planner has changed, another one may have to be looked for: `first_world`.
SHOWN_BY: dict[Plant, int] = {
    bugs.memory_is_free_at_the_stop: 0,
    bugs.nobody_has_a_turn: 1,
    bugs.stops_are_not_repeated: 1,
    bugs.strangers_are_not_adopted: 0,
    bugs.blindness_is_emptiness: 0,
    bugs.a_start_under_way_is_forgotten: 0,
    bugs.a_save_that_failed_is_ignored: 0,
    bugs.a_wake_needs_no_room: 4,
    bugs.a_drain_ends_at_once: 0,
    bugs.unknown_load_is_none: 0,
    bugs.failures_are_not_counted: 0,
    bugs.a_clock_never_goes_back: 4,
    bugs.one_that_stays_up_hides_the_others: 27,
}
FAR = 120  # worlds that are looked at, where the noted one doesn't show it


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_noticed(bug: Plant) -> None:
    assert first_world(bug) is not None, f"no world below {FAR} shows that {bug.__doc__}"


def test_a_large_model_that_has_to_hope_is_noticed() -> None:
    with planted(bugs.large_models_have_to_hope):
        assert longest_wait_beside_small_ones_s(0) > 70.0


def first_world(bug: Plant) -> int | None:
    """The first seed that shows `bug`: the noted one, else one of the first."""
    with planted(bug):
        return next((seed for seed in (SHOWN_BY[bug], *range(FAR)) if visit(make_world(seed)) is not None), None)

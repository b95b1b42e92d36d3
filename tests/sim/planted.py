"""Bugs to plant: each breaks one rule of the planner, or of the loop around it, and a simulation has to notice.

Each is a context in which the planner is broken. What it makes of a world is in the test beside it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from modelgrid.planner import Facts, backoff, end, evict, grow, life
from modelgrid.planner.life import Lap
from modelgrid.spec import Failures, Fleet, Model, Replica, Seen, State
from sim.world import World

plan = importlib.import_module("modelgrid.planner.plan")  # the package has a function of this name

Plant = Callable[[pytest.MonkeyPatch], None]


@contextlib.contextmanager
def planted(bug: Plant) -> Iterator[None]:
    """The planner with `bug`, for the length of a block."""
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        yield


def memory_is_free_at_the_stop(patch: pytest.MonkeyPatch) -> None:
    """What was told to stop no longer counts, though it is still there."""
    whole = Replica.counted.fget  # type: ignore[attr-defined]  # a property has one

    def counted(replica: Replica) -> Any:
        return () if replica.state is State.STOPPING else whole(replica)

    patch.setattr(Replica, "counted", property(counted))


def nobody_has_a_turn(patch: pytest.MonkeyPatch) -> None:
    """Who was just loaded may be made to go at once, busy or not."""
    patch.setattr(evict, "_has_had_its_turn", lambda replica, *more: replica.state is State.READY)


def stops_are_not_repeated(patch: pytest.MonkeyPatch) -> None:
    """A stop that was lost is never sent again."""
    again = end._stop_again
    patch.setattr(end, "_stop_again", lambda replica, *more: again(replica, *more) if replica.stops == 0 else None)


def strangers_are_not_adopted(patch: pytest.MonkeyPatch) -> None:
    """What runs and isn't known is left alone."""
    _observing(patch, lambda fleet, facts: replace(facts, seen=_known(fleet, facts.seen)))


def blindness_is_emptiness(patch: pytest.MonkeyPatch) -> None:
    """A runtime that can't see is taken to see that nothing is there."""
    _observing(patch, lambda fleet, facts: replace(facts, blind=frozenset()))


def a_start_under_way_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was told to start and isn't listed yet is taken for gone."""
    _observing(patch, lambda fleet, facts: replace(facts, starting=frozenset()))


def a_save_that_failed_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """The controller acts on what it could not remember."""
    save = World.save
    patch.setattr(World, "save", lambda world, lap: save(world, lap) or True)


def a_wake_needs_no_room(patch: pytest.MonkeyPatch) -> None:
    """Who sleeps is woken wherever there is anything free."""
    patch.setattr(grow, "less", lambda shares, others: ())


def a_drain_ends_at_once(patch: pytest.MonkeyPatch) -> None:
    """What is in flight on a draining replica is cut off."""
    ends = plan.end

    def hurried(replica: Replica, model: Model | None, now: float) -> Any:
        done = replace(replica, in_flight=0) if replica.state is State.DRAINING else replica
        return ends(done, model, now)

    patch.setattr(plan, "end", hurried)


def unknown_load_is_none(patch: pytest.MonkeyPatch) -> None:
    """A replica of which no worker tells is taken to be idle."""

    def known(fleet: Fleet, facts: Facts) -> Facts:
        return replace(facts, in_flight={replica.id: 0 for replica in fleet.replicas} | dict(facts.in_flight))

    _observing(patch, known)


def failures_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """No back-off: a start that fails is tried again at once."""
    patch.setattr(backoff, "failed", lambda before, *more, **most: before)


def large_models_have_to_hope(patch: pytest.MonkeyPatch) -> None:
    """Room that comes free is not kept for who was first."""
    patch.setattr(grow, "_reserve", lambda *any: None)
    patch.setattr(grow, "_claim", lambda *any: None)


def a_clock_never_goes_back(patch: pytest.MonkeyPatch) -> None:
    """Times that lie ahead are believed."""
    patch.setattr(life, "_no_younger", lambda replica, now: replica)
    patch.setattr(life, "_not_ahead", lambda failures, now: failures)


# This was no plant: the planner had it.


def one_that_stays_up_hides_the_others(patch: pytest.MonkeyPatch) -> None:
    """A replica that was ready all along makes up for another that fails beside it."""
    observe = World.observe

    def forgiving(world: World, fleet: Fleet, facts: Facts) -> Lap:
        lap = observe(world, fleet, facts)
        stable = [r for r in lap.replicas if r.state is State.READY and facts.now - r.since >= backoff.STABLE_S]
        return replace(lap, failures=lap.failures | {replica.model: Failures() for replica in stable})

    patch.setattr(World, "observe", forgiving)


BUGS: tuple[Plant, ...] = (
    one_that_stays_up_hides_the_others,
    memory_is_free_at_the_stop,
    nobody_has_a_turn,
    stops_are_not_repeated,
    strangers_are_not_adopted,
    blindness_is_emptiness,
    a_start_under_way_is_forgotten,
    a_save_that_failed_is_ignored,
    a_wake_needs_no_room,
    a_drain_ends_at_once,
    unknown_load_is_none,
    failures_are_not_counted,
    a_clock_never_goes_back,
)


def _observing(patch: pytest.MonkeyPatch, changed: Callable[[Fleet, Facts], Facts]) -> None:
    """What is observed is changed before the planner reads it; the checks know the truth."""
    observe = World.observe

    def mistaken(world: World, fleet: Fleet, facts: Facts) -> Lap:
        return observe(world, fleet, changed(fleet, facts))

    patch.setattr(World, "observe", mistaken)


def _known(fleet: Fleet, seen: Mapping[Any, Seen]) -> dict[Any, Seen]:
    ids: Sequence[Any] = [replica.id for replica in fleet.replicas]
    return {id: one for id, one in seen.items() if id in ids}

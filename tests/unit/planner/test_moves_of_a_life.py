"""Only the legal moves, and what an order does to what is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from modelgrid.planner import apply
from modelgrid.planner.life import move
from modelgrid.spec import (
    MOVES,
    Drain,
    IllegalMove,
    ModelName,
    Refuse,
    Replica,
    ReplicaId,
    Start,
    State,
    Stop,
    shares_of,
)
from unit.planner.fleets import NOW, fleet, model, replica

A = ReplicaId("a-1")
LEGAL = [(before, after) for before in State for after in sorted(MOVES[before])]
ILLEGAL = [pair for pair in itertools.product(State, State) if pair not in LEGAL]


@pytest.mark.parametrize(("before", "after"), LEGAL)
def test_legal_moves(before: State, after: State) -> None:
    given = replica(state=before)
    assert move(given, after, "new", NOW) == replace(given, state=after, why="new", since=NOW)


@pytest.mark.parametrize(("before", "after"), ILLEGAL)
def test_illegal_moves_are_defects(before: State, after: State) -> None:
    with pytest.raises(IllegalMove, match=f"a-1 cannot go from {before} to {after}: new"):
        move(replica(state=before), after, "new", NOW)


def test_a_start_is_known_before_it_is_done() -> None:
    asked = model(runtime="remote")
    expected = Replica(
        A,
        ModelName("a"),
        asked.spec.revision,
        State.STARTING,
        shares_of(4),
        NOW,
        NOW,
        "requests waited",
        runtime="remote",
    )
    assert apply(fleet([asked]), [Start(A, ModelName("a"), shares_of(4), "requests waited")]) == (expected,)


def test_a_drain() -> None:
    expected = replace(replica(), state=State.DRAINING, why="idle", since=NOW)
    assert apply(fleet([model()], [replica()]), [Drain(A, "idle")]) == (expected,)


@pytest.mark.parametrize("state", [State.STARTING, State.DRAINING])
def test_a_stop(state: State) -> None:
    given = replica(state=state)
    expected = replace(given, state=State.STOPPING, why="enough", since=NOW, stops=1)
    assert apply(fleet([model()], [given]), [Stop(A, False, "enough")]) == (expected,)


@pytest.mark.parametrize("state", [State.STOPPING, State.FAILED])
def test_a_stop_once_more_keeps_the_time_and_the_reason(state: State) -> None:
    given = replica(state=state, stops=3)
    assert apply(fleet([model()], [given]), [Stop(A, True, "still there")]) == (replace(given, stops=4),)


def test_a_refusal_changes_no_replica() -> None:
    assert apply(fleet([model()], [replica()]), [Refuse(ModelName("a"), "full", 30.0)]) == (replica(),)


def test_a_ready_replica_is_never_stopped_without_a_drain() -> None:
    with pytest.raises(IllegalMove):
        apply(fleet([model()], [replica()]), [Stop(A, True, "now")])

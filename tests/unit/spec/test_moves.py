"""The table of a replica's legal moves."""

from __future__ import annotations

from modelgrid.spec import MOVES, State


def test_every_state_has_its_row() -> None:
    assert set(MOVES) == set(State)


def test_what_stops_never_serves_again() -> None:
    seen, queue = set(), [State.STOPPING, State.FAILED]
    while queue:
        state = queue.pop()
        seen.add(state)
        queue += MOVES[state] - seen
    assert not seen & {State.STARTING, State.READY, State.ASLEEP}


def test_requests_are_drained_before_a_ready_replica_stops() -> None:
    assert State.STOPPING not in MOVES[State.READY]


def test_anything_that_runs_may_fail() -> None:
    assert [state for state in State if state not in (State.STOPPING, State.FAILED)] == [
        state for state in State if State.FAILED in MOVES[state]
    ]

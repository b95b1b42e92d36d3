"""How replicas end: drained, asked, forced."""

from __future__ import annotations

import pytest

from modelgrid.planner import plan, wind_down
from modelgrid.spec import Action, Drain, Replica, ReplicaId, State, Stop, Wish
from unit.planner.fleets import fleet, model, replica

A = ReplicaId("a-1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(replica(state=State.FAILED, why="it broke"), [Stop(A, True, "it broke")], id="failed is forced"),
        pytest.param(replica(state=State.DRAINING), [Stop(A, False, "because")], id="drained is asked"),
        pytest.param(replica(state=State.DRAINING, in_flight=1), [], id="busy is waited for"),
        pytest.param(replica(state=State.DRAINING, in_flight=None), [], id="unknown is waited for"),
        pytest.param(
            replica(state=State.DRAINING, in_flight=1, in_state_s=301),
            [Stop(A, False, "because; still busy after 5m00s")],
            id="busy for too long is cut off",
        ),
        pytest.param(
            replica(state=State.DRAINING, in_flight=None, in_state_s=301),
            [Stop(A, False, "because; still busy after 5m00s")],
            id="unknown for too long is cut off",
        ),
        pytest.param(replica(state=State.STOPPING), [Stop(A, False, "because")], id="asked first"),
        pytest.param(replica(state=State.STOPPING, stops=1, in_state_s=4.9), [], id="grace"),
        pytest.param(
            replica(state=State.STOPPING, stops=1, in_state_s=5),
            [Stop(A, True, "it was still there 5.0s after it was asked to stop")],
            id="force after grace",
        ),
        pytest.param(
            replica(state=State.STOPPING, stops=9, in_state_s=99),
            [Stop(A, True, "it was still there 5.0s after it was asked to stop")],
            id="force again and again",
        ),
        pytest.param(
            replica(state=State.STOPPING, stops=1, in_state_s=1, has_exited=True),
            [Stop(A, True, "because")],
            id="what is left of an exited one is forced at once",
        ),
        pytest.param(
            replica(args=("other",)),
            [Drain(A, "the model's configuration has changed")],
            id="changed while ready",
        ),
        pytest.param(
            replica(state=State.STARTING, args=("other",)),
            [Stop(A, False, "the model's configuration has changed")],
            id="changed while starting",
        ),
        pytest.param(replica(), [], id="a ready one stays"),
        pytest.param(replica(state=State.STARTING), [], id="a start goes on"),
    ],
)
def test_a_replica_s_next_step(given: Replica, expected: list[Action]) -> None:
    assert plan(fleet([model()], [given])) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (replica(), [Drain(A, "the model was removed from the configuration")]),
        (replica(state=State.STARTING), [Stop(A, False, "the model was removed from the configuration")]),
        (replica(state=State.STOPPING, stops=1, in_state_s=9.9), []),
        (
            replica(state=State.STOPPING, stops=1, in_state_s=10),
            [Stop(A, True, "it was still there 10.0s after it was asked to stop")],
        ),
    ],
)
def test_replicas_of_a_removed_model_go(given: Replica, expected: list[Action]) -> None:
    assert plan(fleet([], [given])) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (replica(unused_s=900, in_state_s=900), [Drain(A, "no request for 15m00s")]),
        (replica(unused_s=899, in_state_s=5000), []),
        (replica(unused_s=5000, in_state_s=899), []),
        (replica(unused_s=5000, in_state_s=5000, in_flight=None), []),
        (replica(unused_s=5000, in_state_s=5000, in_flight=1), []),
        (replica(state=State.STARTING, unused_s=5000, in_state_s=5000), []),
    ],
    ids=["idle", "used", "just ready", "unknown load is not idle", "busy", "starting"],
)
def test_idle_replicas_drain_and_no_others(given: Replica, expected: list[Action]) -> None:
    assert plan(fleet([model()], [given])) == expected


def test_nothing_is_idle_while_requests_wait() -> None:
    asked = model(waiting=1)
    assert plan(fleet([asked], [replica(unused_s=5000, in_state_s=5000)])) == []


def test_the_floor_is_never_idle() -> None:
    given = [replica(unused_s=5000, in_state_s=5000), replica("a-2", unused_s=4000, in_state_s=5000)]
    assert plan(fleet([model(min=1, max=2)], given)) == [Drain(A, "no request for 1h23m")]
    assert plan(fleet([model(min=2, max=2)], given)) == []
    assert plan(fleet([model(max=2, wish=Wish.LOADED)], given)) == [Drain(A, "no request for 1h23m")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (replica(), [Drain(A, "it was unloaded by hand")]),
        (replica(in_flight=1), [Drain(A, "it was unloaded by hand")]),
        (replica(in_flight=None), [Drain(A, "it was unloaded by hand")]),
        (replica(state=State.STARTING), [Stop(A, False, "it was unloaded by hand")]),
    ],
)
def test_an_unload_drains_also_what_is_busy_or_below_the_floor(given: Replica, expected: list[Action]) -> None:
    assert plan(fleet([model(min=1, wish=Wish.UNLOADED)], [given])) == expected


def test_an_unload_ends_no_start_that_somebody_waits_for() -> None:
    assert plan(fleet([model(wish=Wish.UNLOADED, waiting=1)], [replica(state=State.STARTING)])) == []


def test_winding_down_ends_every_replica_in_its_own_way() -> None:
    given = [
        replica("a-1"),
        replica("a-2", State.STARTING),
        replica("a-3", State.DRAINING, in_flight=1),
        replica("a-4", State.DRAINING),
        replica("a-5", State.STOPPING, stops=1, in_state_s=1),
        replica("a-6", State.FAILED),
        replica("b-7"),
    ]
    assert wind_down(fleet([model(waiting=1, min=1)], given)) == [
        Drain(ReplicaId("a-1"), "modelgrid stops"),
        Stop(ReplicaId("a-2"), False, "modelgrid stops"),
        Stop(ReplicaId("a-4"), False, "because"),
        Stop(ReplicaId("a-6"), True, "because"),
        Drain(ReplicaId("b-7"), "the model was removed from the configuration"),
    ]


def test_winding_down_starts_nothing() -> None:
    assert wind_down(fleet([model(waiting=1, min=1)])) == []

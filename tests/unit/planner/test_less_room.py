"""What has to give way: to less memory, to a port that is taken, to a neighbour that holds too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner import Facts, observe, plan
from modelgrid.spec import (
    MAIN,
    Device,
    Drain,
    Fleet,
    Machine,
    Model,
    Place,
    Replica,
    ReplicaId,
    Share,
    Start,
    State,
    Wish,
)
from unit.planner.fleets import NOW, fleet, model, replica, running

NOW_ONLY = "models may take 5 B now"


def test_where_models_may_take_less_the_longest_unused_goes() -> None:
    replicas = [replica("a-1", unused_s=5), replica("b-1", unused_s=50)]
    lowered = fleet([model("a"), model("b")], replicas, memory_bytes=5)
    assert plan(lowered) == [Drain(ReplicaId("b-1"), NOW_ONLY)]


def test_where_models_may_take_less_what_is_busy_or_kept_is_spared_as_long_as_that_is_enough() -> None:
    replicas = [replica("a-1", unused_s=90, in_flight=1), replica("b-1", unused_s=50), replica("c-1", unused_s=99)]
    lowered = fleet([model("a"), model("b"), model("c", wish=Wish.LOADED)], replicas, memory_bytes=8)
    assert [action.replica for action in plan(lowered) if isinstance(action, Drain)] == [ReplicaId("b-1")]


def test_where_models_may_take_much_less_also_what_is_kept_goes() -> None:
    lowered = fleet([model("a", min=1, memory_bytes=4)], [replica("a-1")], memory_bytes=3)
    assert Drain(ReplicaId("a-1"), "models may take 3 B now") in plan(lowered)


def test_a_fixed_port_is_free_before_it_is_used_again() -> None:
    def fixed(given: Model) -> Model:
        return replace(given, spec=replace(given.spec, port=8001))

    going = replica("a-1", State.STOPPING, stops=1, in_state_s=1)
    asked = fleet([fixed(model("a", waiting=1))], [going])
    assert not any(isinstance(action, Start) for action in plan(asked))
    assert any(isinstance(action, Start) for action in plan(replace(asked, replicas=())))


def test_one_that_holds_too_much_does_not_take_its_neighbours_along() -> None:
    replicas = (replica("a-1", memory_bytes=4), replica("b-1", memory_bytes=3), replica("c-1", memory_bytes=3))
    models = (model("a", 4), model("b", 2), model("c", 2))
    held = {ReplicaId("a-1"): {MAIN: 8}, ReplicaId("b-1"): {MAIN: 3}, ReplicaId("c-1"): {MAIN: 3}}
    facts = Facts(NOW, seen={one.replica: one for one in (running("a-1"), running("b-1"), running("c-1"))})
    first = observe(Fleet(NOW, fleet().machines, models, replicas, held=held), facts)
    assert [r.state for r in first.replicas] == [State.FAILED, State.READY, State.READY]
    second = observe(Fleet(NOW, fleet().machines, models, first.replicas, held=held), facts)
    assert [r.state for r in second.replicas] == [State.FAILED, State.READY, State.READY]


def servers(count: int) -> Model:
    urls = tuple(f"http://host-{number}/v1" for number in range(count))
    plain = model(memory_bytes=0, min=count, max=count, runtime="remote")
    return replace(plain, spec=replace(plain.spec, urls=urls))


@pytest.mark.parametrize("state", [State.READY, State.FAILED, State.STOPPING])
def test_a_server_is_its_replica_s_until_that_is_gone(state: State) -> None:
    wanted = servers(3)
    own = [replace(replica(f"a-{number}", memory_bytes=0), revision=wanted.spec.revision) for number in (1, 2)]
    leaving = replace(replica("a-3", state, memory_bytes=0, stops=1), revision=wanted.spec.revision)
    assert [action for action in plan(fleet([wanted], [*own, leaving])) if isinstance(action, Start)] == []
    [start] = [action for action in plan(fleet([wanted], own)) if isinstance(action, Start)]
    assert start.model == "a"


def test_servers_are_all_used_at_once_and_a_new_list_of_them_waits_for_nobody() -> None:
    wanted = servers(3)
    assert len([action for action in plan(fleet([wanted])) if isinstance(action, Start)]) == 3
    older = [replica(f"a-{number}", State.DRAINING, 0, in_flight=1) for number in (1, 2)]
    assert len([action for action in plan(fleet([wanted], older)) if isinstance(action, Start)]) == 3


def _on_gpu(index: int) -> Replica:
    return replace(replica(f"a-{index}", in_flight=1), shares=(Share(f"gpu{index}", 4), Share(MAIN, 2)))


def _box(*gpus: int) -> Machine:
    return Machine((Device(MAIN, 9, 9), *(Device(f"gpu{index}", 9, 9, index) for index in gpus)), accelerator="cuda")


def test_who_is_on_a_gpu_that_models_may_not_use_any_more_goes() -> None:
    replicas = (_on_gpu(0), _on_gpu(1))
    (drain,) = plan(Fleet(NOW, (_box(0),), (model(max=2),), replicas))
    assert drain == Drain(ReplicaId("a-1"), "models may not use gpu1 any more")


def test_a_machine_that_shows_no_gpu_at_all_lets_go_of_nobody() -> None:
    replicas = (_on_gpu(0), _on_gpu(1))
    assert plan(Fleet(NOW, (_box(),), (model(max=2),), replicas)) == []


def test_a_place_on_a_gpu_that_is_gone_is_none_on_any_gpu() -> None:
    assert Place(_box(0), _on_gpu(1).shares).gpus == ()

"""Models that can sleep make room by sleeping, wake before anything is loaded, and never count for less than they
may hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from modelgrid.planner import Facts, apply, observe, plan, wind_down
from modelgrid.spec import (
    MAIN,
    Action,
    Asleep,
    Device,
    Drain,
    Fleet,
    Machine,
    Model,
    Refuse,
    Replica,
    ReplicaId,
    Share,
    Sleep,
    Start,
    State,
    Stop,
    Wake,
    Wish,
    cpu_machine,
)
from unit.planner.fleets import NOW, exited, fleet, model, replica, running

A1, A2, B1 = ReplicaId("a-1"), ReplicaId("a-2"), ReplicaId("b-1")
NAP = Asleep(share=0.25, main_bytes=0, wake_s=1.0)


def sleeper(name: str = "a", memory_bytes: int = 8, *, nap: Asleep = NAP, priority: int = 0, **more: object) -> Model:
    made = model(name, memory_bytes, **more)  # type: ignore[arg-type]  # passed through
    return replace(made, sleep=nap, load_s=10.0, spec=replace(made.spec, priority=priority))


def asleep(
    id: str = "a-1",
    memory_bytes: int = 8,
    kept: int = 2,
    *,
    turning: Literal["asleep", "awake"] | None = None,
    unused_s: float = 0.0,
    in_state_s: float = 100.0,
) -> Replica:
    made = replica(id, State.ASLEEP, memory_bytes, unused_s=unused_s, in_state_s=in_state_s, in_flight=None)
    return replace(made, asleep_shares=(Share(MAIN, kept),), turning=turning)


def drained(id: str = "a-1", memory_bytes: int = 8, kept: int = 2, *, in_flight: int | None = 0) -> Replica:
    made = replica(id, State.DRAINING, memory_bytes, in_flight=in_flight)
    return replace(made, then="sleep", asleep_shares=(Share(MAIN, kept),))


def kinds(actions: list[Action]) -> list[type[Action]]:
    return [type(action) for action in actions]


# how it is decided


def test_room_is_made_by_sleep_where_a_model_can() -> None:
    (drain,) = plan(fleet([sleeper(), model("b", 8, waiting=1)], [replica("a-1", memory_bytes=8)]))
    assert drain == Drain(A1, "its memory is needed for b", "sleep")


def test_a_model_that_is_woken_more_slowly_than_loaded_is_stopped() -> None:
    slow = sleeper(nap=Asleep(0.25, 0, 20.0))
    (drain,) = plan(fleet([slow, model("b", 8, waiting=1)], [replica("a-1", memory_bytes=8)]))
    assert drain == Drain(A1, "its memory is needed for b", "stop")


def test_one_whose_sleep_would_not_make_enough_room_is_stopped() -> None:
    (drain,) = plan(fleet([sleeper(), model("b", 9, waiting=1)], [replica("a-1", memory_bytes=8)]))
    assert drain == Drain(A1, "its memory is needed for b", "stop")


def test_of_two_that_may_sleep_only_as_many_are_stopped_as_it_takes() -> None:
    models = [sleeper("a", 5), sleeper("b", 5), model("c", 9, waiting=1)]
    both = [replica("a-1", memory_bytes=5, unused_s=50.0), replica("b-1", memory_bytes=5)]
    assert plan(fleet(models, both)) == [
        Drain(A1, "its memory is needed for c", "stop"),
        Drain(B1, "its memory is needed for c", "sleep"),
    ]


def test_one_that_is_drained_to_sleep_sleeps_when_nothing_is_in_flight() -> None:
    assert kinds(plan(fleet([sleeper()], [drained(in_flight=0)]))) == [Sleep]
    assert kinds(plan(fleet([sleeper()], [drained(in_flight=1)]))) == []


@pytest.mark.parametrize(
    "changed",
    [
        replace(sleeper(), sleep=None),
        sleeper(wish=Wish.UNLOADED),
        sleeper(args=("--other",)),
    ],
    ids=["can't sleep any more", "unloaded", "changed"],
)
def test_one_that_was_to_sleep_is_stopped_where_that_makes_no_sense_any_more(changed: Model) -> None:
    assert kinds(plan(fleet([changed], [drained()]))) == [Stop]


def test_one_that_was_to_sleep_is_stopped_when_its_model_is_gone() -> None:
    assert kinds(plan(fleet([], [drained()]))) == [Stop]


def test_nothing_is_put_to_sleep_by_a_modelgrid_that_stops() -> None:
    assert kinds(wind_down(fleet([sleeper(), sleeper("b")], [drained(), asleep("b-1")]))) == [Stop, Stop]


# waking


def test_what_sleeps_is_woken_where_there_is_room_rather_than_another_started() -> None:
    assert plan(fleet([sleeper(waiting=1)], [asleep()])) == [Wake(A1, "requests waited for it")]


def test_room_is_made_before_one_is_woken() -> None:
    fleet_ = fleet([sleeper(waiting=1), sleeper("b")], [asleep(), replica("b-1", memory_bytes=8)])
    assert plan(fleet_) == [Drain(B1, "its memory is needed for a", "sleep")]


def test_a_request_for_what_is_falling_asleep_starts_no_second_one() -> None:
    for falling in (drained("a-1", 4, 1, in_flight=0), asleep("a-1", 4, 1, turning="asleep")):
        actions = plan(fleet([sleeper(memory_bytes=4, waiting=1)], [falling]))
        assert not any(isinstance(action, Start) for action in actions)
    busy = drained("a-1", 4, 1, in_flight=1)  # that may take minutes
    (start,) = plan(fleet([sleeper(memory_bytes=4, waiting=1)], [busy]))
    assert isinstance(start, Start)


def test_while_one_falls_asleep_nobody_else_makes_room_as_well() -> None:
    models = [sleeper("a", 5), model("b", 8, waiting=1), sleeper("c", 3)]
    others = replica("c-1", memory_bytes=3)
    assert kinds(plan(fleet(models, [asleep("a-1", 5, 1, turning="asleep"), others]))) == [
        Drain
    ]  # 1 is free, 6 will be
    models[1] = model("b", 6, waiting=1)
    assert plan(fleet(models, [asleep("a-1", 5, 1, turning="asleep"), others])) == []
    assert plan(fleet(models, [drained("a-1", 5, 1, in_flight=1), others])) == []


def test_one_that_wakes_is_not_woken_again_and_is_no_victim() -> None:
    models = [sleeper(waiting=1), model("b", 8, waiting=1)]
    assert plan(fleet(models, [asleep(turning="awake")])) == []


def test_one_that_sleeps_makes_room_by_ending() -> None:
    assert plan(fleet([sleeper(), model("b", 9, waiting=1)], [asleep()])) == [
        Stop(A1, False, "its memory is needed for b")
    ]


def test_where_it_can_not_be_woken_another_is_started_elsewhere() -> None:
    machines = (cpu_machine(10), cpu_machine(10, "other"))
    kept = replica("b-1", memory_bytes=8)
    seen = Fleet(NOW, machines, (sleeper(waiting=1), model("b", 8, min=1)), (asleep(), kept), 7)
    start, stop = plan(seen)
    assert isinstance(start, Start)
    assert start.machine == "other"
    assert isinstance(stop, Stop)  # else it would leave a sleeper wherever it was


def test_where_what_is_kept_leaves_no_room_to_wake_callers_are_told() -> None:
    seen = fleet([sleeper(waiting=1), model("b", 8, min=1)], [asleep(), replica("b-1", memory_bytes=8)])
    (refuse,) = plan(seen)
    assert isinstance(refuse, Refuse)
    assert "kept loaded" in refuse.why


# how it ends


def test_one_that_sleeps_and_is_not_needed_for_long_is_stopped() -> None:
    assert plan(fleet([sleeper(idle_s=50.0)], [asleep(unused_s=49.0)])) == []
    assert plan(fleet([sleeper(idle_s=50.0)], [asleep(unused_s=51.0)])) == [Stop(A1, False, "no request for 51.0s")]


@pytest.mark.parametrize("turning", [None, "asleep", "awake"])
def test_an_unload_by_hand_stops_one_that_sleeps_or_turns(turning: Literal["asleep", "awake"] | None) -> None:
    seen = fleet([sleeper(wish=Wish.UNLOADED)], [asleep(turning=turning)])
    assert plan(seen) == [Stop(A1, False, "it was unloaded by hand")]


@pytest.mark.parametrize("models", [[], [sleeper(args=("--other",))]], ids=["removed", "changed"])
def test_one_that_sleeps_is_stopped_with_its_model_and_its_revision(models: list[Model]) -> None:
    (stop,) = plan(fleet(models, [asleep()]))
    assert isinstance(stop, Stop)
    assert stop.replica == A1


def test_with_less_memory_what_sleeps_goes_before_what_serves() -> None:
    models = [sleeper("a", 6), model("b", 6)]
    seen = fleet(models, [asleep("a-1", 6), replica("b-1", memory_bytes=6)], memory_bytes=6)
    (stop,) = plan(seen)
    assert isinstance(stop, Stop)
    assert stop.replica == A1


def test_one_that_was_woken_has_its_turn_counted_from_how_long_that_took() -> None:
    woken = replica("a-1", memory_bytes=8, in_flight=1, ready_s=6.0, load_s=1000.0)
    models = [sleeper(), model("b", 8, waiting=1, waited_s=6.0)]
    assert plan(fleet(models, [replace(woken, took_s=None)])) == []
    assert kinds(plan(fleet(models, [replace(woken, took_s=1.0)]))) == [Drain]


# what is counted


def test_what_falls_asleep_counts_whole_until_its_engine_has_said_so() -> None:
    seen = fleet([sleeper(), model("b", 8, waiting=1)], [replica("a-1", memory_bytes=8)])
    (draining,) = apply(seen, plan(seen))
    assert (draining.state, draining.memory_bytes) == (State.DRAINING, 8)
    seen = replace(seen, replicas=(replace(draining, in_flight=0),))
    (falling,) = apply(seen, [Sleep(A1, "why")])
    assert (falling.state, falling.turning, falling.memory_bytes) == (State.ASLEEP, "asleep", 8)
    lap = observe(replace(seen, replicas=(falling,)), Facts(NOW, {A1: running("a-1")}, slept=frozenset({A1})))
    assert (lap.replicas[0].turning, lap.replicas[0].memory_bytes) == (None, 2)
    assert [event.what for event in lap.events] == ["asleep"]
    assert kinds(plan(replace(seen, replicas=lap.replicas))) == [Start]


def test_one_that_wakes_counts_whole_from_the_order_on() -> None:
    seen = fleet([sleeper(waiting=1)], [asleep()])
    (waking,) = apply(seen, plan(seen))
    assert (waking.turning, waking.memory_bytes) == ("awake", 8)
    lap = observe(replace(seen, replicas=(waking,)), Facts(NOW + 3, {A1: running("a-1")}, woken=frozenset({A1})))
    (ready,) = lap.replicas
    assert (ready.state, ready.turning, ready.asleep_shares, ready.took_s) == (State.READY, None, (), 3.0)
    assert ready.why == "woken: requests waited for it"


def test_one_that_keeps_its_memory_asleep_counts_with_what_it_holds() -> None:
    facts = Facts(NOW, {A1: running("a-1")})
    holding = fleet([sleeper()], [asleep()], resident={A1: 7})
    assert observe(holding, facts).replicas[0].memory_bytes == 7
    let_go = replace(holding, replicas=observe(holding, facts).replicas, held={A1: {MAIN: 1}})
    assert observe(let_go, facts).replicas[0].memory_bytes == 2  # it was the moment before it slept


def test_a_liar_is_stopped_for_who_waits() -> None:
    seen = fleet([sleeper(), model("b", 8, waiting=1)], [asleep()], resident={A1: 8})
    lap = observe(seen, Facts(NOW, {A1: running("a-1")}))
    assert plan(replace(seen, replicas=lap.replicas)) == [Stop(A1, False, "its memory is needed for b")]


def test_one_that_stops_while_it_turns_counts_whole_and_one_that_slept_as_little_as_it_took() -> None:
    for turning, counted in (("asleep", 8), ("awake", 8), (None, 2)):
        sleeping = asleep(turning=turning)  # type: ignore[arg-type]  # one of the three
        seen = fleet([sleeper()], [sleeping])
        assert apply(seen, [Stop(A1, False, "why")])[0].memory_bytes == counted


def test_one_that_was_to_sleep_and_is_stopped_counts_whole() -> None:
    seen = fleet([sleeper()], [drained()])
    assert apply(seen, [Stop(A1, False, "why")])[0].memory_bytes == 8


# main memory beside GPUs

GPU = Machine((Device(MAIN, 10, 10), Device("gpu0", 10, 10, index=0)))


def on_gpu(id: str, gpu: int, main: int = 0) -> Replica:
    shares = (Share("gpu0", gpu), *((Share(MAIN, main),) if main else ()))
    return replace(replica(id), shares=shares)


def test_weights_that_wait_in_main_memory_are_counted_before_they_come_there() -> None:
    nap = Asleep(share=0.25, main_bytes=6, wake_s=1.0)
    seen = Fleet(NOW, (GPU,), (sleeper(nap=nap), model("b", 7, waiting=1)), (on_gpu("a-1", 8, 1),), 7)
    (draining,) = apply(seen, plan(seen))
    assert {share.device: share.memory_bytes for share in draining.counted} == {"gpu0": 8, MAIN: 7}
    (asleep_,) = apply(replace(seen, replicas=(replace(draining, in_flight=0),)), [Sleep(A1, "why")])
    settled = replace(asleep_, turning=None)
    assert {share.device: share.memory_bytes for share in settled.counted} == {"gpu0": 2, MAIN: 7}


def test_main_memory_has_room_for_the_weights_of_one_and_the_other_is_stopped() -> None:
    nap = Asleep(share=0.0, main_bytes=6, wake_s=1.0)
    models = (sleeper("a", 5, nap=nap), sleeper("b", 5, nap=nap), model("c", 10, waiting=1))
    drains = plan(Fleet(NOW, (GPU,), models, (on_gpu("a-1", 5), on_gpu("b-1", 5)), 7))
    assert sorted(drain.then for drain in drains if isinstance(drain, Drain)) == ["sleep", "stop"]


def test_one_whose_weights_find_no_room_in_main_memory_is_stopped() -> None:
    nap = Asleep(share=0.0, main_bytes=11, wake_s=1.0)
    seen = Fleet(NOW, (GPU,), (sleeper(nap=nap), model("b", 8, waiting=1)), (on_gpu("a-1", 8),), 7)
    assert plan(seen) == [Drain(A1, "its memory is needed for b", "stop")]


# failures


def test_one_that_can_not_be_put_to_sleep_is_stopped_and_its_model_not_blamed() -> None:
    facts = Facts(NOW, {A1: running("a-1")}, turn_errors={A1: "POST /sleep answered 500"})
    lap = observe(fleet([sleeper()], [asleep(turning="asleep")]), facts)
    assert (lap.replicas[0].state, lap.replicas[0].memory_bytes) == (State.STOPPING, 8)
    assert lap.replicas[0].why == "it could not be put to sleep: POST /sleep answered 500"
    assert lap.failures["a"].count == 0  # type: ignore[index]  # a model's name


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"turn_errors": {A1: "POST /wake_up answered 500"}}, "it could not be woken: POST /wake_up answered 500"),
        ({"unready": {A1: "nothing"}, "now": NOW + 61}, "not awake after 1m00s (start_timeout): nothing"),
        ({"seen": {A1: exited("a-1", "killed by SIGKILL")}}, "killed by SIGKILL"),
        ({"seen": {}}, "it is gone, and nobody saw it end"),
    ],
)
def test_one_that_can_not_be_woken_has_failed(facts: dict[str, object], why: str) -> None:
    told = Facts(**{"now": NOW, "seen": {A1: running("a-1")}, **facts})  # type: ignore[arg-type]  # by name
    lap = observe(fleet([sleeper(waiting=1)], [asleep(turning="awake", in_state_s=0.0)]), told)
    assert (lap.replicas[0].state, lap.replicas[0].why) == (State.FAILED, why)
    assert [failures.count for failures in lap.failures.values()] == [1]


def test_one_that_dies_asleep_has_failed() -> None:
    lap = observe(fleet([sleeper()], [asleep()]), Facts(NOW, {A1: exited("a-1")}))
    assert lap.replicas[0].state is State.FAILED


def test_what_is_said_of_sleep_to_one_that_does_not_turn_changes_nothing() -> None:
    seen = fleet([sleeper()], [asleep()])
    facts = Facts(NOW, {A1: running("a-1")}, slept=frozenset({A1}), woken=frozenset({A1}))
    assert observe(seen, facts).replicas[0].state is State.ASLEEP


def test_room_for_a_need_over_sleeping_neighbours_is_never_overcommitted() -> None:
    """Three that take turns in a room for one awake and two asleep."""
    models = [sleeper("a", 6), sleeper("b", 6), sleeper("c", 6)]
    replicas: tuple[Replica, ...] = ()
    for turn in range(12):
        wanted = turn % 3
        waiting = [replace(one, waiting=int(index == wanted), waiting_since=NOW) for index, one in enumerate(models)]
        seen = fleet(waiting, replicas, next=turn * 10 + 1)
        for _ in range(12):
            replicas = apply(seen, plan(seen))
            assert sum(one.memory_bytes for one in replicas) <= 10
            shown = {one.id: running(one.id) for one in replicas if one.state is not State.STOPPING}
            alive = frozenset(shown)
            facts = Facts(NOW, shown, served=alive, slept=alive, woken=alive, in_flight=dict.fromkeys(alive, 0))
            replicas = observe(replace(seen, replicas=replicas), facts).replicas
            seen = replace(seen, replicas=replicas, next=seen.next + 1)
        ready = [one.model for one in replicas if one.state is State.READY]
        assert ready == ["abc"[wanted]], replicas

"""What was seen becomes what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from modelgrid.planner import Facts, Lap, observe
from modelgrid.spec import (
    MAIN,
    Device,
    Event,
    Failures,
    Fleet,
    Machine,
    Model,
    ModelName,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Share,
    State,
    Unknown,
    shares_of,
)
from unit.planner.fleets import NOW, exited, fleet, model, replica, running

A = ReplicaId("a-1")
NAME = ModelName("a")


def look(
    before: Replica | None,
    seen: Seen | None = None,
    *,
    of: Model | None = None,
    starting: bool = False,
    start_error: str | None = None,
    served: bool = False,
    sick: str | None = None,
    in_flight: int | None = None,
    blind: bool = False,
) -> Lap:
    facts = Facts(
        NOW,
        seen={seen.replica: seen} if seen else {},
        blind=frozenset({"process"}) if blind else frozenset(),
        starting=frozenset({A}) if starting else frozenset(),
        start_errors={A: start_error} if start_error else {},
        served=frozenset({A}) if served else frozenset(),
        sick={A: sick} if sick else {},
        in_flight={} if in_flight is None else {A: in_flight},
    )
    return observe(fleet([of or model()], [before] if before else []), facts)


def told(what: str, why: str) -> Event:
    return Event(NOW, NAME, A, what, why)


def failed(before: Replica, why: str) -> Replica:
    return replace(before, state=State.FAILED, since=NOW, why=why)


STARTING = replica(state=State.STARTING, in_state_s=10, in_flight=None)
READY = replica()
BLIND_SPOT = "it is gone, and nobody saw it end"


def test_a_start_that_was_answered_is_ready() -> None:
    lap = look(STARTING, running(A), served=True, in_flight=0)
    ready = replace(
        STARTING,
        state=State.READY,
        why="started: because",
        since=NOW,
        ready_at=NOW,
        last_used=NOW,
        in_flight=0,
        took_s=10.0,
    )
    assert lap == Lap((ready,), {NAME: Failures()}, (told("ready", "started: because"),))


def test_what_was_pulled_before_the_process_began_is_no_part_of_what_a_start_took() -> None:
    after_an_hour = replace(STARTING, created=NOW - 3600.0)
    assert look(after_an_hour, running(A), served=True, in_flight=0).replicas[0].took_s == 10.0


def test_who_was_made_ready_counts_as_used_from_then_on() -> None:
    long_ago = replace(STARTING, last_used=0.0)
    assert look(long_ago, running(A), served=True, in_flight=0).replicas[0].last_used == NOW


def test_a_start_goes_on_until_it_is_answered() -> None:
    assert look(STARTING, running(A)) == Lap((STARTING,), {NAME: Failures()}, ())


def test_the_time_limit_counts_from_the_first_sight_of_the_process() -> None:
    fetching = replica(state=State.STARTING, in_state_s=4000, is_spawned=False, in_flight=None)
    assert look(fetching, starting=True).replicas == (fetching,)
    assert look(fetching, running(A), starting=True).replicas == (replace(fetching, spawned=NOW),)


@pytest.mark.parametrize(
    ("before", "seen", "facts", "why"),
    [
        pytest.param(STARTING, None, {}, BLIND_SPOT, id="a lost start"),
        pytest.param(READY, None, {}, BLIND_SPOT, id="gone while ready"),
        pytest.param(READY, None, {"starting": True}, BLIND_SPOT, id="a ready one is not under way"),
        pytest.param(STARTING, exited(A), {}, "exited with code 1", id="exited while starting"),
        pytest.param(READY, exited(A, "killed by SIGKILL"), {}, "killed by SIGKILL", id="exited while ready"),
        pytest.param(STARTING, None, {"start_error": "no disk"}, "no disk", id="the start failed"),
        pytest.param(STARTING, running(A), {"start_error": "no answer"}, "no answer", id="the answer was lost"),
        pytest.param(READY, running(A), {"sick": "no answer"}, "no answer", id="sick"),
    ],
)
def test_a_death_is_a_failure_of_the_model(
    before: Replica, seen: Seen | None, facts: dict[str, bool], why: str
) -> None:
    lap = look(before, seen, of=model(failures=Failures(1, 5.0, "old", True)), **facts)  # type: ignore[arg-type]  # by name
    assert lap.replicas[0].state is State.FAILED
    assert lap.replicas[0].why == why
    assert lap.failures == {NAME: Failures(2, NOW, why, hopeless=False)}
    assert lap.events == (told("failed", why),)


def test_a_start_under_way_is_not_lost() -> None:
    assert look(STARTING, starting=True) == Lap((STARTING,), {NAME: Failures()}, ())


def test_a_start_that_takes_too_long_is_hopeless() -> None:
    late = replica(state=State.STARTING, in_state_s=61)
    why = "not ready after 1m00s (start_timeout)"
    expected = Lap(
        (failed(replace(late, in_flight=0), why),), {NAME: Failures(1, NOW, why, True)}, (told("failed", why),)
    )
    assert look(late, running(A), in_flight=0) == expected
    assert look(replica(state=State.STARTING, in_state_s=60), running(A)).events == ()


def test_who_answers_at_the_last_moment_is_not_late() -> None:
    late = replica(state=State.STARTING, in_state_s=61)
    assert [event.what for event in look(late, running(A), served=True).events] == ["ready"]


def test_a_start_that_ended_by_itself_is_not_hopeless_however_late() -> None:
    lap = look(replica(state=State.STARTING, in_state_s=61), exited(A))
    assert lap.failures == {NAME: Failures(1, NOW, "exited with code 1", False)}


def test_a_ready_replica_has_no_time_limit() -> None:
    assert look(replica(in_state_s=9999), running(A)).events == ()


def test_what_serves_for_a_minute_has_made_up_for_its_failures() -> None:
    before = Failures(2, 5.0, "old")
    assert look(replica(in_state_s=59.9), running(A), of=model(failures=before)).failures == {NAME: before}
    assert look(replica(in_state_s=60), running(A), of=model(failures=before)).failures == {NAME: Failures()}


@pytest.mark.parametrize(("in_flight", "last_used"), [(0, 9960.0), (None, 9960.0), (2, NOW)])
def test_use_is_what_is_in_flight(in_flight: int | None, last_used: float) -> None:
    before = replica(in_flight=7, unused_s=40)
    expected = replace(before, in_flight=in_flight, last_used=last_used)
    assert look(before, running(A), in_flight=in_flight).replicas == (expected,)


def test_requests_that_came_and_went_between_two_laps_are_use_too() -> None:
    before = (replica("a-1", unused_s=40), replica("a-2", unused_s=30), replica("b-3", unused_s=50))
    known = fleet([model(last_used=NOW - 5), model("b")], before)
    facts = Facts(NOW, seen={r.id: running(r.id) for r in before}, in_flight={r.id: 0 for r in before})
    assert [replica.last_used for replica in observe(known, facts).replicas] == [NOW - 40, NOW - 5, NOW - 50]


def test_use_is_never_set_back() -> None:
    before = replica(unused_s=3)
    assert look(before, running(A), of=model(last_used=NOW - 9)).replicas[0].last_used == NOW - 3


@pytest.mark.parametrize("state", [State.STARTING, State.READY])
def test_behind_a_blind_runtime_nothing_moves_but_the_load(state: State) -> None:
    before = replica(state=state, in_flight=3)
    lap = look(before, None, blind=True, start_error="no answer", sick="no answer", in_flight=1)
    assert lap == Lap((replace(before, in_flight=1),), {NAME: Failures()}, ())


@pytest.mark.parametrize("state", [State.STOPPING, State.FAILED])
def test_behind_a_blind_runtime_nothing_is_gone(state: State) -> None:
    before = replica(state=state, stops=1)
    assert look(before, None, blind=True).replicas == (replace(before, in_flight=None),)


@pytest.mark.parametrize("state", [State.STOPPING, State.FAILED])
def test_gone_is_what_was_told_to_stop_and_is_not_seen(state: State) -> None:
    assert look(replica(state=state, stops=1)) == Lap((), {NAME: Failures()}, (told("gone", "because"),))
    for still in (
        look(replica(state=state, stops=0)),  # not told yet: a lost start may still appear
        look(replica(state=state, stops=1), starting=True),
        look(replica(state=state, stops=1), running(A)),
    ):
        assert [replica.state for replica in still.replicas] == [state]
        assert still.events == ()


@pytest.mark.parametrize("state", [State.STOPPING, State.FAILED])
def test_what_has_exited_and_still_holds_memory_is_not_gone(state: State) -> None:
    before = replica(state=state, stops=1)
    assert look(before, exited(A, processes=2)).replicas == (replace(before, has_exited=True),)


@pytest.mark.parametrize("seen", [None, exited(A)])
def test_a_draining_replica_that_ends_is_no_failure(seen: Seen | None) -> None:
    why = "because; it has ended by itself"
    lap = look(replica(state=State.DRAINING), seen)
    after = replace(replica(state=State.DRAINING), state=State.STOPPING, since=NOW, why=why)
    assert lap == Lap((after,), {NAME: Failures()}, (told("stopping", why),))


def test_a_draining_replica_tells_what_it_still_has() -> None:
    before = replica(state=State.DRAINING, in_flight=2)
    assert look(before, running(A), in_flight=1).replicas == (replace(before, in_flight=1, last_used=NOW),)
    assert look(before, running(A)).replicas == (replace(before, in_flight=None),)


def adopted(seen: Seen, models: list[Model], on: Mapping[ReplicaId, str] | None = None) -> Replica:
    facts = Facts(NOW, seen={seen.replica: seen}, seen_on=on or {})
    [found] = observe(fleet(models), facts).replicas
    return found


def test_what_runs_and_is_wanted_is_adopted() -> None:
    lap = look(None, running(A))
    expected = Replica(
        A,
        NAME,
        model().spec.revision,
        State.STARTING,
        shares_of(4),
        since=NOW,
        created=NOW,
        why="it ran already",
        spawned=NOW,
    )
    assert lap == Lap((expected,), {NAME: Failures()}, (told("adopt", "it ran already"),))


@pytest.mark.parametrize(
    ("seen", "models"),
    [(running(A, args=("old",)), [model()]), (running(A), []), (exited(A), [model()])],
    ids=["another revision", "an unknown model", "exited"],
)
def test_what_is_not_wanted_as_it_is_goes(seen: Seen, models: list[Model]) -> None:
    found = adopted(seen, models)
    assert (found.state, found.why) == (State.STOPPING, "it was left behind, and no model asks for it as it is")


def test_an_adopted_replica_counts_with_the_most_that_is_known() -> None:
    assert adopted(running(A, memory_bytes=6), [model()]).memory_bytes == 6
    assert adopted(running(A, memory_bytes=2), [model()]).memory_bytes == 4
    assert adopted(running(A, memory_bytes=6), []).memory_bytes == 6


@pytest.mark.parametrize(
    ("known", "held", "expected"),
    [
        ([model()], {}, 4),
        ([], {"gpu1": 6}, 6),
        ([], {}, 10),
        ([replace(model(), need=Unknown("its weights are being read"))], {"gpu1": 6}, 6),
        ([replace(model(), need=Unknown("its weights are being read"))], {}, 0),
    ],
    ids=["needs 4", "unknown, holds 6", "unknown", "of unknown size, holds 6", "of unknown size"],
)
def test_what_is_adopted_on_a_gpu_counts_there(known: list[Model], held: dict[str, int], expected: int) -> None:
    gpus = tuple(Device(f"gpu{index}", 10, 10, index) for index in range(2))
    box = Machine((Device(MAIN, 10, 10), *gpus), accelerator="cuda")
    seen = replace(running(A, memory_bytes=3), devices=("gpu1",))
    assert isinstance(seen.state, Running)
    seen = replace(seen, state=replace(seen.state, gpu_bytes=held))
    lap = observe(Fleet(NOW, (box,), tuple(known)), Facts(NOW, seen={A: seen}))
    assert lap.replicas[0].shares == (Share("gpu1", expected),)


def test_a_stranger_belongs_to_the_runtime_that_showed_it() -> None:
    assert adopted(running(A), [], {A: "remote"}).runtime == "remote"
    assert adopted(running(A), [model()], {A: "remote"}).runtime == "remote"
    assert adopted(running(A), [model(runtime="remote")]).runtime == "remote"


def eaters(*sizes: tuple[str, int], planned: int = 4) -> tuple[Fleet, Facts]:
    before = [replica(id) for id, _ in sizes]
    names = sorted({id.rpartition("-")[0] for id, _ in sizes})
    known = fleet(
        [model(name, planned) for name in names], before, resident={ReplicaId(id): size for id, size in sizes}
    )
    return known, Facts(NOW, seen={replica.id: running(replica.id) for replica in before})


def test_who_eats_more_than_planned_counts_with_it() -> None:
    lap = observe(*eaters(("a-1", 6), ("b-2", 1)))
    assert [(replica.state, replica.memory_bytes) for replica in lap.replicas] == [(State.READY, 6), (State.READY, 4)]


def test_the_worst_eater_goes_where_not_all_fit() -> None:
    lap = observe(*eaters(("a-1", 5), ("b-2", 7)))
    why = "it holds 7 B, 4 B were planned, and all models together no longer fit in 10 B (try: raise needs.memory of b)"
    assert [replica.state for replica in lap.replicas] == [State.READY, State.FAILED]
    assert lap.events == (Event(NOW, ModelName("b"), ReplicaId("b-2"), "failed", why),)
    assert lap.failures == {NAME: Failures(), ModelName("b"): Failures(1, NOW, why)}


def test_nobody_goes_who_eats_what_was_planned() -> None:
    lap = observe(*eaters(("a-1", 4), ("b-2", 4), ("c-3", 4)))
    assert {replica.state for replica in lap.replicas} == {State.READY}


def test_an_overeater_that_leaves_takes_nobody_along() -> None:
    known, facts = eaters(("a-1", 7), ("b-2", 4), planned=3)
    for state in (State.DRAINING, State.STOPPING, State.FAILED):
        leaving = replace(known.replicas[0], state=state, shares=shares_of(7), stops=1, in_flight=1)
        lap = observe(replace(known, replicas=(leaving, *known.replicas[1:])), facts)
        assert [replica.state for replica in lap.replicas] == [state, State.READY]


def test_an_overeater_goes_rather_than_its_neighbour_while_a_third_one_leaves() -> None:
    known, facts = eaters(("a-1", 4), ("b-2", 7), ("c-3", 4))
    leaving = replace(known.replicas[0], state=State.DRAINING, in_flight=1)
    lap = observe(replace(known, replicas=(leaving, *known.replicas[1:])), facts)
    assert [replica.state for replica in lap.replicas] == [State.DRAINING, State.FAILED, State.READY]

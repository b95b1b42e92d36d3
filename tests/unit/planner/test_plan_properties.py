"""What holds for every fleet, however it came about."""

from __future__ import annotations

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from modelgrid.planner import Facts, apply, observe, plan, wind_down
from modelgrid.spec import (
    Action,
    Drain,
    Exited,
    Failures,
    Fleet,
    Model,
    Need,
    Refuse,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Start,
    State,
    Stop,
    Unknown,
    Wish,
    sum_of,
)
from unit.planner.fleets import NOW, fleet, model, replica

NAMES = ("a", "b", "c", "d")
SIGHTS: list[Running | Exited] = [Running("u", "u", 3), Running("u", "u"), Exited("broke"), Exited("broke", 2)]
AGES_S = st.sampled_from([0.0, 1.0, 4.9, 5.0, 60.0, 301.0, 5000.0])


@st.composite
def models(draw: st.DrawFn, name: str) -> Model:
    waiting = draw(st.sampled_from([0, 0, 1, 9]))
    least = draw(st.sampled_from([0, 0, 1, 2]))
    return model(
        name,
        draw(st.one_of(st.integers(0, 12), st.just(Unknown("nobody knows")))),
        waiting=waiting,
        waited_s=draw(AGES_S),
        failures=draw(st.builds(Failures, st.integers(0, 5), st.just(NOW - 3), st.just("it broke"), st.booleans())),
        wish=draw(st.sampled_from([None, None, Wish.LOADED, Wish.UNLOADED])),
        runtime=draw(st.sampled_from(["process", "process", "remote"])),
        min=least,
        max=draw(st.integers(max(1, least), 3)),
        idle_s=draw(st.sampled_from([0.0, 30.0])),
        args=draw(st.sampled_from([(), (), ("new",)])),
    )


@st.composite
def replicas(draw: st.DrawFn, number: int) -> Replica:
    return replica(
        f"{draw(st.sampled_from(NAMES))}-{number}",
        draw(st.sampled_from([state for state in State if state is not State.ASLEEP])),
        draw(st.integers(0, 8)),
        in_flight=draw(st.sampled_from([None, 0, 0, 3])),
        unused_s=draw(AGES_S),
        in_state_s=draw(AGES_S),
        load_s=draw(AGES_S),
        stops=draw(st.integers(0, 2)),
        has_exited=draw(st.booleans()),
        is_spawned=draw(st.booleans()),
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    known = [draw(models(name)) for name in NAMES[: draw(st.integers(0, len(NAMES)))]]
    numbers = draw(st.lists(st.integers(1, 9), unique=True, max_size=6))
    return fleet(
        known,
        [draw(replicas(number)) for number in numbers],
        next=draw(st.integers(1, 9)),
        blind=draw(st.sampled_from([frozenset[str](), frozenset({"process"}), frozenset({"remote"})])),
    )


def starts(actions: list[Action]) -> list[Start]:
    return [action for action in actions if isinstance(action, Start)]


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_starts_never_take_more_than_there_is(given: Fleet) -> None:
    held = sum(replica.memory_bytes for replica in given.replicas)
    asked = [sum_of(action.shares) for action in starts(plan(given))]
    assert all(bytes == 0 for bytes in asked) or held + sum(asked) <= given.machines[0].memory_bytes


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_every_start_has_an_id_of_its_own_and_is_of_a_model_that_may_start(given: Fleet) -> None:
    actions = starts(plan(given))
    known = {model.spec.name: model for model in given.models}
    ids = [action.replica for action in actions]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {replica.id for replica in given.replicas}
    for action in actions:
        assert set(action.replica) <= set(string.ascii_lowercase + string.digits + ".-")
        need = known[action.model].need
        assert isinstance(need, Need)
        assert sum_of(action.shares) == need.memory_bytes
        assert known[action.model].runtime not in given.blind
        assert known[action.model].failures.last + 0.5 < NOW


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_every_action_is_about_something_that_is_there_and_each_replica_has_one(given: Fleet) -> None:
    for decide in (plan, wind_down):
        actions = decide(given)
        told = [action.replica for action in actions if isinstance(action, Drain | Stop)]
        assert set(told) <= {replica.id for replica in given.replicas}
        assert len(set(told)) == len(told)
        refused = {action.model for action in actions if isinstance(action, Refuse)}
        assert refused <= {model.spec.name for model in given.models}
        assert not refused & {action.model for action in starts(actions)}


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_every_plan_is_a_legal_move_and_says_why(given: Fleet) -> None:
    for decide in (plan, wind_down):
        actions = decide(given)
        apply(given, actions)  # raises IllegalMove
        assert all(action.why for action in actions)


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_nobody_is_cut_off_before_the_drain_limit(given: Fleet) -> None:
    known = {replica.id: replica for replica in given.replicas}
    for action in plan(given):
        if isinstance(action, Stop) and known[action.replica].state is State.DRAINING:
            told = known[action.replica]
            assert told.in_flight == 0 or NOW - told.since > 300


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_the_floor_is_kept_from_those_who_want_room(given: Fleet) -> None:
    actions = plan(given)
    evicted = {action.replica for action in actions if isinstance(action, Drain | Stop) and "is needed" in action.why}
    for one in given.models:
        own = [replica for replica in given.replicas if replica.model == one.spec.name and replica.id in evicted]
        alive = [
            replica
            for replica in given.replicas
            if replica.model == one.spec.name and replica.state in (State.STARTING, State.READY)
        ]
        least = 0 if one.wish is Wish.UNLOADED else max(one.spec.scaling.min, int(one.wish is Wish.LOADED))
        assert not own or len(alive) - len(own) >= least


@st.composite
def facts(draw: st.DrawFn, given: Fleet) -> Facts:
    seen = {}
    ids = [replica.id for replica in given.replicas]
    for id in draw(st.lists(st.sampled_from([*ids, ReplicaId("a-77"), ReplicaId("z-78")]), unique=True)):
        name = model(id.rpartition("-")[0]).spec
        state = draw(st.sampled_from(SIGHTS))
        seen[id] = Seen(id, name.name, name.revision, state)
    some = st.frozensets(st.sampled_from(ids)) if ids else st.just(frozenset[ReplicaId]())
    return Facts(
        NOW,
        seen=seen,
        blind=given.blind,
        starting=draw(some),
        start_errors=dict.fromkeys(draw(some), "no disk"),
        served=draw(some),
        sick=dict.fromkeys(draw(some), "no answer"),
        in_flight=dict.fromkeys(draw(some), 2),
    )


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_seen_is_known_and_nothing_is_known_twice(data: st.DataObject) -> None:
    before = data.draw(fleets())
    found = data.draw(facts(before))
    lap = observe(before, found)
    ids = [replica.id for replica in lap.replicas]
    assert len(set(ids)) == len(ids)
    assert set(found.seen) <= set(ids)
    lost = {replica.id for replica in before.replicas} - set(ids)
    assert lost <= {replica.id for replica in before.replicas if replica.stops and replica.id not in found.starting}

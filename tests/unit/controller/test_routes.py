"""The routing table and the picture for people: whole values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid import __version__
from modelgrid.controller import table
from modelgrid.controller.phases import Phases
from modelgrid.controller.slots import Slots
from modelgrid.controller.view import Surroundings, picture
from modelgrid.spec import (
    MAIN,
    AccessKey,
    Choice,
    Device,
    Exited,
    Failures,
    Fleet,
    Limits,
    Machine,
    Model,
    ModelName,
    ModelSpec,
    ModelStatus,
    Need,
    Parameters,
    Quota,
    Refuse,
    Replica,
    ReplicaId,
    ReplicaStatus,
    Route,
    Routing,
    RoutingTable,
    Running,
    Scaling,
    Seen,
    Share,
    State,
    Status,
    Target,
    Unavailable,
    Unknown,
    Virtual,
    VirtualSpec,
    Wish,
    cpu_machine,
    shares_of,
)
from modelgrid.spec.operations import OPERATIONS

A = ModelName("a")
ALL = OPERATIONS
SPEC = ModelSpec(A, "custom", aliases=("gpt",), command=("x",), limits=Limits(7, 9.0), scaling=Scaling(1, 3))
MODEL = Model(SPEC, Need(4), waiting=2, last_used=90.0)


def replica(id: str, state: State, *, in_flight: int | None = 0) -> Replica:
    made = Replica(
        ReplicaId(id), A, SPEC.revision, state, shares_of(4), since=95.0, created=94.0, why=f"{state} because"
    )
    return replace(made, in_flight=in_flight)


def target(id: str) -> Target:
    return Target(replica=id, url=f"http://127.0.0.1/{id}/v1", model="a", key="k")


def fleet(model: Model, *replicas: Replica) -> Fleet:
    return Fleet(100.0, (replace(cpu_machine(10), source="machine.memory"),), (model,), replicas)


B = ModelName("b")
OTHER = Model(ModelSpec(B, "embeddings", source="x/y", limits=Limits(2, 3.0)), Need(4))
SMART = VirtualSpec(
    ModelName("smart"), Virtual(choices=(Choice(model="b"), Choice(model="a")), spill_over=8), aliases=("gpt-4o",)
)


def route_of(model: Model, *replicas: Replica, refusal: Refuse | None = None, ended: str | None = None) -> Route:
    targets = {one.id: target(one.id) for one in replicas}
    refusals = {A: refusal} if refusal else {}
    [found] = table.routes(fleet(model, *replicas), targets, refusals, {A: 50}, {A: ended} if ended else {})
    return found


def test_only_ready_replicas_are_routed_to() -> None:
    states = [*State]
    replicas = [replica(f"a-{number}", state) for number, state in enumerate(states)]
    assert route_of(MODEL, *replicas) == Route(
        model="a",
        aliases=("gpt",),
        operations=ALL,
        targets=(target(f"a-{states.index(State.READY)}"),),
        queue=7,
        wait_s=9.0,
        created=50,
        state="ready",
        why="ready because",
    )


def test_who_waits_can_be_told_how_long_a_start_takes() -> None:
    assert route_of(MODEL).starts_s is None
    assert route_of(replace(MODEL, load_s=41.73)).starts_s == 41.7


def test_a_model_says_whether_who_waits_is_told_so() -> None:
    told = replace(MODEL, spec=replace(SPEC, limits=Limits(progress=True)))
    assert [route_of(model).progress for model in (MODEL, told)] == [False, True]


def test_a_ready_replica_of_which_nobody_knows_where_it_is_is_not_routed_to() -> None:
    [found] = table.routes(fleet(MODEL, replica("a-1", State.READY)), {}, {}, {}, {})
    assert found.targets == ()


def test_a_refusal_reaches_callers_with_a_time_that_does_not_tick() -> None:
    for retry_after_s, told_s in ((0.0, 1.0), (0.1, 5.0), (5.0, 5.0), (5.1, 10.0)):
        refused = route_of(MODEL, refusal=Refuse(A, "too large", retry_after_s))
        assert refused.unavailable == Unavailable(why="too large", retry_after_s=told_s)
        assert (refused.state, refused.why) == ("unavailable", "too large")


def test_a_refusal_is_nothing_to_the_callers_of_a_ready_replica() -> None:
    served = route_of(MODEL, replica("a-1", State.READY), refusal=Refuse(A, "too large", 5.0))
    assert (served.unavailable, served.state) == (None, "ready")


@pytest.mark.parametrize(
    ("model", "replicas", "ended", "expected"),
    [
        (MODEL, [replica("a-1", State.STARTING)], None, ("starting", "starting because")),
        (MODEL, [], "idle", ("cold", "requests wait for it")),
        (replace(MODEL, waiting=0), [], None, ("cold", "no request has asked for it")),
        (replace(MODEL, waiting=0), [], "idle", ("cold", "stopped: idle")),
        (replace(MODEL, waiting=0), [replica("a-1", State.STOPPING)], None, ("cold", "no request has asked for it")),
        (replace(MODEL, failures=Failures(1, 99.0, "it broke")), [], "it broke", ("failed", "it broke")),
    ],
)
def test_a_model_s_state_and_reason(
    model: Model, replicas: list[Replica], ended: str | None, expected: tuple[str, str]
) -> None:
    found = route_of(model, *replicas, ended=ended)
    assert (found.state, found.why) == expected


def test_a_table_that_says_nothing_new_is_not_sent() -> None:
    routes = (route_of(MODEL),)
    keys = (AccessKey(id="1", name="me", sha256="00"),)
    before = RoutingTable(number=3, routes=routes, keys=keys)
    assert table.same(before, routes, keys)
    assert not table.same(None, routes, keys)
    assert not table.same(before, (), keys)
    assert not table.same(before, routes, ())


def test_what_a_table_routes_to() -> None:
    assert table.routed((route_of(MODEL, replica("a-1", State.READY)), route_of(MODEL))) == {"a-1"}


def test_the_status_is_everything() -> None:
    ready = replica("a-1", State.READY, in_flight=2)
    starting = replica("a-2", State.STARTING, in_flight=None)
    gone = replica("a-3", State.FAILED, in_flight=None)
    phases = Phases()
    phases.enter("queued", 94.0)
    phases.enter("environment", 96.0, "12 of 80")
    url, root = "http://127.0.0.1:1/v1", "http://127.0.0.1:1"
    seen = {
        ready.id: Seen(ready.id, A, SPEC.revision, Running(url, root, 3, 42)),
        gone.id: Seen(gone.id, A, SPEC.revision, Exited("broke")),
    }
    around = Surroundings(80.0, "/c.yaml", "line 3: no", 7, 2, "http://127.0.0.1:9000", "the disk is full")
    found = picture(fleet(MODEL, ready, starting, gone), {}, seen, {starting.id: phases}, {}, around)
    assert found == Status(
        version=__version__,
        now=100.0,
        started=80.0,
        config="/c.yaml",
        config_error="line 3: no",
        memory_bytes=10,
        memory_source="machine.memory",
        memory_planned_bytes=12,
        table=7,
        workers=2,
        address="http://127.0.0.1:9000",
        models=(
            ModelStatus(
                name="a",
                engine="custom",
                source=None,
                aliases=("gpt",),
                state="ready",
                why="ready because",
                memory_bytes=4,
                waiting=2,
                in_flight=2,
                last_used=90.0,
                min=1,
                max=3,
                wish=None,
                retry_at=None,
                operations=ALL,
                waiting_since=MODEL.waiting_since,
                idle_s=MODEL.spec.scaling.idle_s,
            ),
        ),
        replicas=(
            ReplicaStatus("a-1", "a", "ready", 95.0, "ready because", 4, 3, 2, url, 42, None, {}, (MAIN,)),
            ReplicaStatus(
                "a-2",
                "a",
                "starting",
                95.0,
                "starting because",
                4,
                None,
                None,
                None,
                None,
                "environment: 12 of 80",
                {"queued": 2.0, "environment": 4.0},
                (MAIN,),
            ),
            ReplicaStatus("a-3", "a", "failed", 95.0, "failed because", 4, None, None, None, None, None, {}, (MAIN,)),
        ),
        problem="the disk is full",
    )


def test_on_gpus_memory_is_told_by_where_it_is() -> None:
    gpus = tuple(Device(f"gpu{index}", 100, 100, index) for index in range(2))
    machine = Machine((Device(MAIN, 50, 50), *gpus), accelerator="cuda")
    shares = (Share("gpu0", 40), Share("gpu1", 40), Share(MAIN, 10))
    wide, small = (replace(replica(f"a-{n}", State.READY), shares=s) for n, s in enumerate((shares, (Share(MAIN, 5),))))
    there = replace(fleet(replace(MODEL, need=Need(None, 2)), wide, small), machines=(machine,))
    seen = {
        one.id: Seen(one.id, A, SPEC.revision, Running("http://a/v1", "http://a", 7, 42, held))
        for one, held in ((wide, {"gpu0": 30, "gpu1": 20}), (small, {}))
    }
    around = Surroundings(80.0, None, None, 0, 0, "", None)
    found = picture(there, {}, seen, {}, {}, around)
    assert (found.memory_bytes, found.memory_planned_bytes) == (200, 80)
    assert (found.main_bytes, found.main_planned_bytes) == (50, 15)
    assert [one.devices for one in found.replicas] == [("gpu0", "gpu1", MAIN), (MAIN,)]
    assert [one.resident_bytes for one in found.replicas] == [57, 7]
    assert (found.models[0].memory_bytes, found.models[0].needs) == (None, "2 GPUs")
    seen[wide.id] = replace(seen[wide.id], state=Running("http://a/v1", "http://a", 7, 42, {"gpu0": 30}))
    assert picture(there, {}, seen, {}, {}, around).replicas[0].resident_bytes is None


def seen_model(model: Model, *replicas: Replica) -> ModelStatus:
    around = Surroundings(80.0, None, None, 0, 0, "", None)
    return picture(fleet(model, *replicas), {}, {}, {}, {}, around).models[0]


def test_one_unknown_load_makes_the_model_s_unknown() -> None:
    ready = replica("a-1", State.READY), replica("a-2", State.READY)
    assert seen_model(MODEL, *ready).in_flight == 0
    assert seen_model(MODEL, ready[0], replace(ready[1], in_flight=None)).in_flight is None


def test_what_is_not_known_or_not_ordinary_is_told() -> None:
    failures = Failures(3, 99.0, "it broke")
    odd = Model(replace(SPEC, source="stand-in"), Unknown("the hub is away"), failures=failures, wish=Wish.LOADED)
    found = seen_model(odd)
    assert (found.memory_bytes, found.wish, found.retry_at) == (None, "loaded", 103.0)
    assert found.note == "a stand-in made on the spot: it speaks nonsense"
    assert seen_model(odd, replica("a-1", State.READY)).retry_at is None
    assert seen_model(replace(MODEL, spec=replace(SPEC, url="http://far/v1"))).source == "http://far/v1"


def test_a_route_tells_what_its_model_says_of_requests() -> None:
    spec = replace(
        SPEC,
        limits=Limits(7, 9.0, Quota(concurrency=3)),
        parameters=Parameters(strip=("user",)),
        routing=Routing(policy="prefix"),
        operations=("videos", "chat"),
    )
    found = route_of(replace(MODEL, spec=spec))
    assert (found.quota, found.parameters) == (Quota(concurrency=3), Parameters(strip=("user",)))
    assert (found.routing, found.operations) == (Routing(policy="prefix"), ("videos", "chat"))


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [(None, None), ("/v1/chat/completions", None), ("/v1/embeddings/", None), ("/v1/music/make/", "/v1/music/make")],
)
def test_a_path_that_is_no_operation_s_is_the_model_s_own(endpoint: str | None, own: str | None) -> None:
    assert route_of(replace(MODEL, spec=replace(SPEC, endpoint=endpoint))).endpoint == own


def both(*replicas: Replica, model: Model = MODEL) -> Fleet:
    return replace(fleet(model, *replicas), models=(model, OTHER))


def test_a_virtual_model_is_a_route_without_targets() -> None:
    ready = replica("a-1", State.READY)
    slots = Slots({("model", "smart"): 5})
    routes = table.routes(both(ready), {ready.id: target("a-1")}, {}, {SMART.name: 60}, {}, (SMART,), slots)
    assert [route.model for route in routes] == ["a", "b", "smart"]
    assert routes[-1] == Route(
        model="smart",
        slot=5,
        aliases=("gpt-4o",),
        operations=ALL,
        queue=2,
        wait_s=3.0,
        created=60,
        state="ready",
        why="a: ready because",
        virtual=SMART.virtual,
    )


def test_a_virtual_model_serves_what_one_of_its_models_does() -> None:
    text = replace(MODEL, spec=replace(SPEC, operations=("completions", "chat")))
    assert table.routes(both(model=text), {}, {}, {}, {}, (SMART,))[-1].operations == (
        "chat",
        "completions",
        "embeddings",
        "rerank",
        "score",
    )


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["unavailable", "failed", "cold", "starting", "ready"], ("ready", "m4: because")),
        (["failed", "starting", "starting", "cold"], ("starting", "m1: because")),
        (["unavailable", "failed"], ("failed", "m1: because")),
        (["unavailable"], ("unavailable", "m0: because")),
        ([], ("unavailable", "there is no model behind it")),
    ],
)
def test_a_virtual_model_is_as_well_as_the_best_of_its_models(states: list[str], expected: tuple[str, str]) -> None:
    choices = [(f"m{number}", state, "because") for number, state in enumerate(states)]
    assert table.describe_virtual(choices) == expected


def test_the_status_of_a_virtual_model_counts_nothing_twice() -> None:
    around = Surroundings(80.0, None, None, 0, 0, "", None)
    found = picture(both(replica("a-1", State.READY, in_flight=2)), {}, {}, {}, {}, around, (SMART,)).models[-1]
    assert (found.name, found.engine, found.behind) == ("smart", "virtual", ("b", "a"))
    assert (found.state, found.why, found.aliases) == ("ready", "a: ready because", ("gpt-4o",))
    assert (found.waiting, found.in_flight, found.min, found.memory_bytes) == (0, None, 0, None)

"""The controller's laps: from a demand to a route, and back to nothing."""

from __future__ import annotations

from dataclasses import replace

from modelgrid.runtimes.fake import Faults, StartFault
from modelgrid.spec import Choice, ModelName, Quota, Target, Virtual, VirtualSpec, Wish
from modelgrid.store import Grant
from unit.controller.stage import Engine, Play, Stage, Worker, spec, until

A = ModelName("a")


async def serve(stage: Stage, *, min: int = 0, idle_s: float = 900.0) -> tuple[Engine, Worker]:
    """Model a, ready as a-1, with a worker that has acknowledged the table."""
    engine = await stage.engine()
    stage.configure(spec("a", engine, min=min, idle_s=idle_s))
    await stage.begin()
    worker = await stage.worker()
    worker.demand("a", 1)
    await stage.becomes(a_1="ready")
    await until(lambda: worker.is_routed("a"))
    worker.demand("a", 0)
    await until(lambda: stage.model().waiting == 0 and stage.model().in_flight == 0)
    return engine, worker


def test_a_demand_starts_a_replica_which_is_probed_and_routed_to(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, worker = await serve(stage)
        assert stage.fakes.starts == ["a-1"]
        [target] = worker.route("a").targets
        key = target.key
        assert target == Target(replica="a-1", url=f"http://127.0.0.1:{engine.port}/v1", model="a", key=key, slot=2)
        assert engine.asked[:2] == ["/health", "/v1/chat/completions"]
        assert engine.keys == {f"Bearer {key}"}
        assert [event.what for event in stage.store.events("a", 9)] == ["start", "ready"]
        phases = stage.controller.status().replicas[0].phases
        assert list(phases) == ["queued", "weights", "spawn", "load", "first_request"]

    play(scene)


def test_what_fails_its_first_request_is_not_routed_to(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        engine.status = 503
        stage.configure(spec("a", engine, min=1))
        await stage.begin()
        worker = await stage.worker()
        await until(lambda: len(engine.asked) > 3)
        assert stage.states() == {"a-1": "starting"}
        assert not worker.is_routed("a")
        engine.status = 404  # it answers, if not with what was asked
        assert stage.states() == {"a-1": "starting"}
        engine.status = 200
        await stage.becomes(a_1="ready")

    play(scene)


def test_an_engine_that_does_not_take_our_key_is_replaced_and_not_waited_for(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        engine.statuses = {"/v1/chat/completions": 401}  # its health check is open to all
        stage.configure(spec("a", engine, min=1))
        await stage.begin()
        await until(lambda: any("another key" in event.why for event in stage.store.events("a", 50)))
        assert "a-1" in {event.replica for event in stage.store.events("a", 50) if event.what == "failed"}

    play(scene)


def test_a_drained_replica_stops_when_the_worker_has_let_go_of_it(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        _, worker = await serve(stage)
        worker.in_flight = {"a-1": 1}
        worker.load()
        await until(lambda: stage.model().in_flight == 1)
        number = worker.table.number
        worker.acknowledges = number
        stage.configure()
        await stage.becomes(a_1="draining")
        await until(lambda: worker.table.number > number)
        worker.in_flight = {}
        worker.load()  # nothing in flight, but by the old table: it may still choose the replica
        await stage.passes(0.3)
        assert stage.states() == {"a-1": "draining"}
        worker.acknowledges = None
        await stage.becomes()
        assert stage.fakes.processes == {}

    play(scene)


def test_unknown_load_is_never_idle(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        _, worker = await serve(stage, idle_s=30.0)
        worker.is_silent = True
        stage.jump(60)
        await until(lambda: stage.model().in_flight is None)
        stage.clock.ahead_s += 60
        await stage.passes(59)
        assert stage.states() == {"a-1": "ready"}
        worker.is_silent = False
        await stage.becomes()

    play(scene)


def test_a_request_that_came_and_went_between_two_laps_keeps_a_replica(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        _, worker = await serve(stage, idle_s=30.0)
        for _ in range(3):
            stage.clock.ahead_s += 20
            worker.load({"a": 1})
            await stage.passes(10)
        assert stage.states() == {"a-1": "ready"}
        stage.jump(31)
        await stage.becomes()

    play(scene)


def test_two_models_take_turns_where_there_is_room_for_one(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        first, second = await stage.engine(), await stage.engine()
        stage.configure(spec("a", first, memory_bytes=8), spec("b", second, memory_bytes=8))
        await stage.begin()
        worker = await stage.worker()
        for number, name in enumerate("aba", start=1):
            worker.demand(name, 1)
            await stage.routed(worker, name)
            worker.demand(name, 0)
            assert stage.states() == {f"{name}-{number}": "ready"}
        assert stage.fakes.starts == ["a-1", "b-2", "a-3"]

    play(scene)


def test_an_engine_that_dies_is_started_again_and_the_reason_tells_what_it_wrote(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        _, worker = await serve(stage)
        worker.demand("a", 1)
        await until(lambda: stage.model().waiting == 1)
        stage.fakes.logs["a-1"] = ["loading", "CUDA out of memory"]  # type: ignore[index]  # an id
        stage.fakes.crash("a-1", "killed by SIGKILL", 2)  # type: ignore[arg-type]  # an id
        await until(lambda: "a-2" in stage.fakes.starts)
        await stage.becomes(a_2="ready")
        events = stage.store.events("a", 20)
        assert [event.what for event in events] == ["start", "ready", "failed", "gone", "start", "ready"]
        assert events[2].why == "killed by SIGKILL\nthe last lines of its log:\n  loading\n  CUDA out of memory"
        assert events[4].why == "requests waited for it, again after: killed by SIGKILL"

    play(scene)


def test_a_model_that_keeps_failing_is_refused_with_its_reason_and_tried_again(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        stage.fakes.faults[A] = Faults(start=StartFault.REFUSED)
        stage.configure(spec("a", engine))
        await stage.begin()
        worker = await stage.worker()
        worker.demand("a", 1)
        for count in (1, 2, 3):
            await stage.failures("a", count)
            stage.jump(2.0**count if count < 3 else 0.1)
        await until(lambda: worker.tables and worker.route("a").unavailable)
        refusal = worker.route("a").unavailable
        assert refusal is not None
        assert refusal.why.startswith("a failed 3 times in a row: cannot start a-3: the fake was told to refuse it")
        assert refusal.retry_after_s == 5.0
        assert (stage.model().state, stage.model().retry_at) == (
            "unavailable",
            stage.store.saved().failures[A].last + 4,
        )
        stage.fakes.faults.clear()
        stage.jump(5)
        await until(lambda: worker.is_routed("a"))
        assert worker.route("a").unavailable is None

    play(scene)


def test_a_model_too_large_is_refused_in_the_table(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.configure(spec("a", memory_bytes=99))
        await stage.begin()
        worker = await stage.worker()
        await until(lambda: worker.tables)
        refusal = worker.route("a").unavailable
        assert refusal is not None
        assert refusal.why.startswith("cannot place a: it needs 99 B, models may take 10 B")
        assert [event.what for event in stage.store.events("a", 9)] == ["refuse"]

    play(scene)


def test_a_load_by_hand_and_an_unload(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        stage.configure(spec("a", engine))
        await stage.begin()
        worker = await stage.worker()
        stage.store.set_wish(A, Wish.LOADED)
        stage.controller.wake()
        await stage.becomes(a_1="ready")
        stage.store.set_wish(A, Wish.UNLOADED)
        stage.controller.wake()
        await stage.becomes()
        worker.demand("a", 1)
        await stage.becomes(a_2="ready")
        assert stage.store.wishes() == {}

    play(scene)


def test_a_model_that_changes_is_started_anew_and_one_that_is_removed_goes(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, worker = await serve(stage, min=1)
        changed = replace(spec("a", engine, min=1), args=("--new",))
        stage.configure(changed)
        await until(lambda: list(stage.states()) == ["a-2"])
        await stage.becomes(a_2="ready")
        assert stage.fakes.processes["a-2"].launch.argv[-1] == "--new"  # type: ignore[index]  # an id
        stage.configure()
        await stage.becomes()
        await until(lambda: worker.table.routes == ())

    play(scene)


def test_a_clock_that_is_put_back_delays_no_edit(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, worker = await serve(stage)
        stage.clock.ahead_s -= 3600.0
        stage.configure(replace(spec("a", engine), aliases=("gpt",)))
        await until(lambda: worker.route("a").aliases == ("gpt",))

    play(scene)


def test_a_change_of_what_does_not_run_changes_the_route_only(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, worker = await serve(stage)
        stage.configure(replace(spec("a", engine), aliases=("gpt",)))
        await until(lambda: worker.route("a").aliases == ("gpt",))
        assert stage.states() == {"a-1": "ready"}
        assert stage.fakes.starts == ["a-1"]

    play(scene)


def test_a_virtual_model_comes_and_goes_with_an_edit_and_starts_nothing(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, worker = await serve(stage)
        smart = VirtualSpec(ModelName("smart"), Virtual(choices=(Choice(model="a"),)), aliases=("gpt-4o",))
        stage.config = replace(stage.config, virtual=(smart,))
        stage.configure(spec("a", engine))
        await until(lambda: len(worker.table.routes) == 2)
        route = worker.route("smart")
        assert (route.virtual, route.state, route.targets) == (smart.virtual, "ready", ())
        assert stage.controller.names() == {"a": "a", "smart": "smart", "gpt-4o": "smart"}
        assert stage.states() == {"a-1": "ready"}
        slot = route.slot
        assert slot not in (0, worker.route("a").slot, worker.route("a").targets[0].slot)
        stage.config = replace(stage.config, virtual=())
        stage.configure(spec("a", engine))
        await until(lambda: len(worker.table.routes) == 1)
        assert stage.fakes.starts == ["a-1"]

    play(scene)


def test_a_key_s_limits_reach_the_workers_and_its_models_by_name(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.configure(replace(spec("a"), aliases=("gpt",)))
        quota = Quota(requests_per_minute=5)
        stage.store.create_key("team", 1.0, Grant(quota=quota, models=("gpt", "a", "later")))
        await stage.begin()
        worker = await stage.worker()
        await until(lambda: worker.tables)
        [key] = worker.table.keys
        assert (key.quota, key.models) == (quota, ("a", "later"))
        assert key.slot != 0

    play(scene)


def test_a_bad_edit_is_told_and_what_runs_goes_on(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await serve(stage)
        stage.bad_config = "cannot read it: no"
        stage.jump(2)
        await until(lambda: stage.controller.status().config_error)
        assert "cannot read it: no" in str(stage.controller.status().config_error)
        assert stage.states() == {"a-1": "ready"}
        stage.bad_config = None
        stage.jump(2)
        await until(lambda: stage.controller.status().config_error is None)

    play(scene)


def test_a_blind_runtime_starts_and_forgets_nothing(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, worker = await serve(stage)
        stage.configure(spec("a", engine), spec("b", engine))
        await until(lambda: len(stage.controller.status().models) == 2)
        stage.fakes.blind = "the records can't be read"
        worker.demand("b", 1)
        await until(lambda: stage.model("b").waiting)
        await stage.passes(0.3)
        assert stage.states() == {"a-1": "ready"}
        assert worker.is_routed("a")
        stage.fakes.blind = None
        await stage.becomes(a_1="ready", b_2="ready")

    play(scene)


def test_a_start_that_hangs_is_cancelled_by_its_stop(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.fakes.faults[A] = Faults(start=StartFault.HANGS)
        stage.configure(spec("a", min=1))
        await stage.begin()
        await stage.becomes(a_1="starting")
        stage.configure()
        await stage.becomes()

    play(scene)


def test_a_reply_that_was_lost_leaves_no_process(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        stage.fakes.faults[A] = Faults(start=StartFault.REPLY_LOST)
        stage.configure(spec("a", engine, min=1))
        await stage.begin()
        await until(lambda: stage.store.saved().failures.get(A))
        stage.fakes.faults.clear()
        await until(lambda: "a-1" not in stage.states())
        assert "a-1" not in stage.fakes.processes
        stage.jump(2)
        await stage.becomes(a_2="ready")

    play(scene)


def test_an_engine_that_ignores_gentle_stops_is_forced_after_its_grace(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.fakes.faults[A] = Faults(ignores_gentle_stops=True)
        await serve(stage)
        stage.configure()
        await stage.becomes(a_1="stopping")
        assert "a-1" in stage.fakes.processes
        stage.jump(11)
        await stage.becomes()
        assert stage.fakes.processes == {}

    play(scene)


def test_stop_ends_every_replica_whatever_is_in_flight(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        _, worker = await serve(stage)
        worker.in_flight = {"a-1": 3}
        worker.load()
        await until(lambda: stage.model().in_flight == 3)
        stage.controller.stop()
        await stage.ended()
        assert stage.fakes.processes == {}
        assert stage.store.saved().replicas == ()
        assert not stage.paths.link_socket.exists()

    play(scene)


def test_logs_are_those_of_each_replica_and_of_the_last_that_has_gone(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await serve(stage)
        [lines] = await stage.controller.logs("a", 5)
        assert (lines.replica, lines.lines) == ("a-1", ("a-1 started",))
        stage.store.set_wish(A, Wish.UNLOADED)
        stage.controller.wake()
        await stage.becomes()
        [lines] = await stage.controller.logs("a", 5)
        assert (lines.replica, lines.lines) == ("a-1", ("a-1 started",))

    play(scene)

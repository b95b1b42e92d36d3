"""A controller that dies, and the next one, on every store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelgrid.runtimes.fake import Faults, StartFault
from modelgrid.spec import ModelName
from modelgrid.store import MemoryStore, Store, open_store
from unit.controller.stage import Engine, Play, Stage, Worker, spec, until

A = ModelName("a")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: open_store(tmp_path / "modelgrid.db"),
    }
    return made[request.param]()


async def serve(stage: Stage) -> tuple[Engine, Worker]:
    engine = await stage.engine()
    stage.configure(spec("a", engine))
    await stage.begin()
    worker = await stage.worker()
    worker.demand("a", 1)
    await stage.becomes(a_1="ready")
    await stage.routed(worker, "a")
    return engine, worker


def test_the_next_controller_keeps_what_is_ready_and_starts_nothing_twice(play: Play, store: Store) -> None:
    async def scene(stage: Stage) -> None:
        _, before = await serve(stage)
        since = stage.controller.status().replicas[0].since
        await stage.kill()
        await stage.begin()
        worker = await stage.worker("w2")
        worker.demand("a", 1)
        await stage.routed(worker, "a")
        assert worker.route("a").targets == before.route("a").targets
        assert worker.table.number > before.table.number
        assert [(r.id, r.state, r.since) for r in stage.controller.status().replicas] == [("a-1", "ready", since)]
        assert stage.fakes.starts == ["a-1"]

    play(scene, store=store)


def test_slots_are_the_same_after_a_restart_and_what_has_gone_is_not_given_to_another(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.store.create_key("mine", 1.0)
        engine, before = await serve(stage)
        [key], route = before.table.keys, before.route("a")
        slots = {key.slot, route.slot, route.targets[0].slot}
        assert slots == {1, 2, 3}
        await stage.kill()
        stage.configure(spec("b"), spec("a", engine))
        await stage.begin()
        worker = await stage.worker("w2")
        await stage.routed(worker, "a")
        assert worker.table.keys == (key,)
        assert (worker.route("a").slot, worker.route("a").targets) == (route.slot, route.targets)
        assert worker.route("b").slot == 4
        stage.configure(spec("c"), spec("a", engine))
        await until(lambda: any(route.model == "c" for route in worker.table.routes))
        assert (worker.route("c").slot, worker.table.last_slot) == (5, 5)

    play(scene)


def test_a_lost_store_is_made_good_by_what_runs(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await serve(stage)
        await stage.kill()
        stage.store = MemoryStore()
        await stage.begin()
        await stage.becomes(a_1="ready")
        assert stage.fakes.starts == ["a-1"]
        assert [event.what for event in stage.store.events("a", 9)] == ["adopt", "ready"]

    play(scene)


def test_what_was_left_of_a_removed_model_is_ended(play: Play, store: Store) -> None:
    async def scene(stage: Stage) -> None:
        await serve(stage)
        await stage.kill()
        stage.configure()
        await stage.begin()
        await stage.worker("w2")
        await until(lambda: not stage.fakes.processes and not stage.states())

    play(scene, store=store)


def test_a_replica_that_died_meanwhile_is_a_failure(play: Play, store: Store) -> None:
    async def scene(stage: Stage) -> None:
        await serve(stage)
        await stage.kill()
        stage.fakes.vanish("a-1")  # type: ignore[arg-type]  # an id
        await stage.begin()
        failures = await stage.failures("a", 1)
        assert failures.why.startswith("it is gone, and nobody saw it end")

    play(scene, store=store)


def test_a_ready_replica_that_hung_meanwhile_is_found_out(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine, _ = await serve(stage)
        await stage.kill()
        engine.status = 503
        asked = len(engine.asked)
        await stage.begin()
        worker = await stage.worker("w2")
        await until(lambda: len(engine.asked) > asked)
        worker.outcome("a-1")
        await until(lambda: len(engine.asked) > asked + 1)
        assert set(engine.asked[asked:]) == {"/health"}, "it is watched, and not asked for a first answer"

    play(scene)


def test_a_back_off_outlives_the_controller(play: Play, store: Store) -> None:
    async def scene(stage: Stage) -> None:
        stage.fakes.faults[A] = Faults(start=StartFault.REFUSED)
        stage.configure(spec("a", min=1))
        await stage.begin()
        for count in range(1, 5):
            await stage.failures("a", count)
            stage.jump(2.0**count)
        failures = await stage.failures("a", 5)
        await stage.kill()
        await stage.begin()
        await until(lambda: stage.controller.status().models)
        await stage.passes(0.3)
        assert stage.model().retry_at == failures.last + 16
        assert stage.model().state == "unavailable"
        assert stage.store.saved().failures[A].count == 5

    play(scene, store=store)


def test_numbers_of_tables_go_on(play: Play, store: Store) -> None:
    async def scene(stage: Stage) -> None:
        _, worker = await serve(stage)
        await stage.kill()
        await stage.begin()
        later = await stage.worker("w2")
        await until(lambda: later.tables)
        assert later.table.number > worker.table.number

    play(scene, store=store)


def test_a_start_s_limit_counts_from_when_somebody_looks_again(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        engine.status = 503
        stage.configure(spec("a", engine, min=1))
        await stage.begin()
        await until(lambda: engine.asked)
        await stage.kill()
        stage.clock.ahead_s += 3600
        engine.status = 200
        await stage.begin()
        await stage.becomes(a_1="ready")
        assert stage.fakes.starts == ["a-1"]

    play(scene)


def test_until_every_worker_has_spoken_the_load_is_unknown(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await serve(stage)
        await stage.worker("w2")
        await until(lambda: stage.model().in_flight == 0)
        await stage.kill()
        await stage.begin()
        await stage.worker("w1")
        await until(lambda: stage.controller.status().workers == 1)
        await stage.passes(0.2)
        assert stage.model().in_flight is None
        await stage.worker("w2")
        await until(lambda: stage.model().in_flight == 0)

    play(scene, workers=2)

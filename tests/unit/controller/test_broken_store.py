"""A store that fails: the controller stops acting and says so, and the rest goes on."""

from __future__ import annotations

from modelgrid.spec import ModelName
from modelgrid.store import MemoryStore
from unit.controller.stage import Play, Stage, Worker, spec, until


async def serve(stage: Stage) -> tuple[MemoryStore, Worker]:
    engine = await stage.engine()
    stage.configure(spec("a", engine, memory_bytes=2), spec("b", engine, memory_bytes=2))
    await stage.begin()
    worker = await stage.worker()
    worker.demand("a", 1)
    await stage.becomes(a_1="ready")
    await stage.routed(worker, "a")
    assert isinstance(stage.store, MemoryStore)
    return stage.store, worker


def test_without_a_store_nothing_is_started_and_the_status_says_why(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        store, worker = await serve(stage)
        store.broken = "the disk is full"
        worker.demand("b", 1)
        await until(lambda: stage.controller.status().problem)
        await stage.passes(0.3)
        assert stage.controller.status().problem == (
            "cannot use the store: the disk is full (it is a fake: clear `broken`)"
        )
        assert stage.states() == {"a-1": "ready"}
        assert stage.fakes.starts == ["a-1"]
        assert worker.is_routed("a")
        store.broken = None
        await stage.routed(worker, "b")
        assert stage.controller.status().problem is None

    play(scene)


def test_a_failure_meanwhile_is_counted_once(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        store, worker = await serve(stage)
        worker.demand("a", 0)
        await until(lambda: not stage.model().waiting)
        store.broken = "the disk is full"
        stage.fakes.crash("a-1")  # type: ignore[arg-type]  # an id
        await until(lambda: stage.controller.status().problem)
        for _ in range(3):
            await stage.passes(0.1)
        store.broken = None
        failures = await stage.failures("a", 1)
        assert failures.why.startswith("killed by SIGKILL")
        assert [event.what for event in store.events("a", 9)].count("failed") == 1

    play(scene)


def test_a_store_that_takes_the_state_and_not_the_events_starts_nothing_twice(play: Play) -> None:
    class Forgetful(MemoryStore):
        """Breaks between the two writes of a lap."""

        def save(self, saved: object) -> None:
            super().save(saved)  # type: ignore[arg-type]  # as it came
            if any(replica.model == "b" for replica in saved.replicas) and self.breaks:  # type: ignore[attr-defined]  # as it came
                self.broken = "the disk is full"
                self.breaks = False

        breaks = True

    async def scene(stage: Stage) -> None:
        store, worker = await serve(stage)
        worker.demand("b", 1)
        await until(lambda: stage.controller.status().problem)
        store.broken = None
        await stage.routed(worker, "b")
        assert len(stage.fakes.starts) == 2
        assert store.saved().failures == {}

    play(scene, store=Forgetful())


def test_at_the_end_everything_is_stopped_also_where_it_cannot_be_remembered(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        store, _ = await serve(stage)
        store.broken = "the disk is full"
        stage.controller.stop()
        await stage.ended()
        assert stage.fakes.processes == {}

    play(scene)


def test_a_table_file_that_cannot_be_written_holds_nobody_up(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        store, worker = await serve(stage)
        stage.paths.table.unlink()
        stage.paths.table.mkdir()  # nothing can replace a folder
        worker.demand("b", 1)
        await stage.routed(worker, "b")
        assert store.saved().failures.get(ModelName("b")) is None

    play(scene)

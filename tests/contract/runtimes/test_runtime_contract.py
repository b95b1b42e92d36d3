"""What every runtime promises."""

from __future__ import annotations

import asyncio
import time

from contract.runtimes.bench import Bench, LocalBench, quiet, see, stop_to_the_end, wait_for_exit, wait_for_log
from modelgrid.runtimes.fake import FakeRuntime
from modelgrid.spec import Exited, ReplicaId, Running

ONE = ReplicaId("tiny-1")
TWO = ReplicaId("tiny-2")


def test_start_twice_is_one_replica(bench: Bench) -> None:
    async def scenario() -> None:
        runtime, other = bench.runtime(), bench.runtime()
        launch = bench.lives()
        await runtime.start(ONE, launch, quiet)
        before = await see(runtime)
        await runtime.start(ONE, launch, quiet)
        await other.start(ONE, launch, quiet)
        assert bench.count() == 1
        after = await see(runtime)
        assert after.keys() == before.keys() == {ONE}
        was, now = before[ONE].state, after[ONE].state
        assert isinstance(was, Running)
        assert isinstance(now, Running)
        assert (now.url, now.pid) == (was.url, was.pid)

    asyncio.run(scenario())


def test_concurrent_starts_are_one_replica(bench: Bench) -> None:
    async def scenario() -> None:
        runtime, other = bench.runtime(), bench.runtime()
        launch = bench.lives()
        await asyncio.gather(*(each.start(ONE, launch, quiet) for each in (runtime, other) * 5))
        assert bench.count() == 1
        assert (await see(runtime)).keys() == (await see(other)).keys() == {ONE}

    asyncio.run(scenario())


def test_start_of_a_dead_replica_that_was_not_stopped_starts_nothing(local: LocalBench) -> None:
    async def scenario() -> None:
        runtime = local.runtime()
        await runtime.start(ONE, local.exits(3), quiet)
        await wait_for_exit(runtime, ONE)
        await runtime.start(ONE, local.lives(), quiet)
        assert isinstance((await see(runtime))[ONE].state, Exited)

    asyncio.run(scenario())


def test_start_returns_when_list_shows_the_replica(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        launch = bench.lives()
        await runtime.start(ONE, launch, quiet)
        seen = (await see(runtime))[ONE]
        assert (seen.replica, seen.model, seen.revision) == (ONE, launch.model, launch.revision)
        assert isinstance(seen.state, Running)
        assert seen.state.url.startswith("http://")

    asyncio.run(scenario())


def test_replicas_have_addresses_of_their_own(local: LocalBench) -> None:
    async def scenario() -> None:
        runtime = local.runtime()
        launch = local.lives()
        await asyncio.gather(runtime.start(ONE, launch, quiet), runtime.start(TWO, launch, quiet))
        states = [seen.state for seen in (await see(runtime)).values()]
        urls = {state.url for state in states if isinstance(state, Running)}
        pids = {state.pid for state in states if isinstance(state, Running)}
        assert len(urls) == len(pids) == 2

    asyncio.run(scenario())


def test_what_was_started_stays_in_the_list_until_it_is_stopped(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        launch = bench.lives()
        await runtime.start(ONE, launch, quiet)
        await runtime.start(TWO, launch, quiet)
        await stop_to_the_end(runtime, ONE, force=False)
        assert (await see(runtime)).keys() == {TWO}
        await stop_to_the_end(runtime, TWO, force=True)
        assert await see(runtime) == {}

    asyncio.run(scenario())


def test_an_exit_is_told_with_its_code_and_stays_until_it_is_stopped(local: LocalBench) -> None:
    async def scenario() -> None:
        runtime = local.runtime()
        await runtime.start(ONE, local.exits(3), quiet)
        ended = Exited("exited with code 3", 0)
        assert await wait_for_exit(runtime, ONE) == ended
        assert (await see(runtime))[ONE].state == ended
        assert (await see(local.runtime()))[ONE].state == ended
        await runtime.stop(ONE, force=False)
        assert await see(runtime) == {}

    asyncio.run(scenario())


def test_a_new_runtime_finds_what_an_old_one_started(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        await runtime.start(ONE, bench.lives(), quiet)
        before = (await see(runtime))[ONE].state
        del runtime
        after = bench.runtime()
        state = (await see(after))[ONE].state
        assert isinstance(state, Running)
        assert isinstance(before, Running)
        assert (state.url, state.root, state.pid) == (before.url, before.root, before.pid)
        await stop_to_the_end(after, ONE, force=False)

    asyncio.run(scenario())


def test_stop_twice_is_harmless(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        await runtime.start(ONE, bench.lives(), quiet)
        await asyncio.gather(runtime.stop(ONE, force=False), runtime.stop(ONE, force=False))
        await stop_to_the_end(runtime, ONE, force=False)
        await runtime.stop(ONE, force=False)
        await runtime.stop(ONE, force=True)
        assert await see(runtime) == {}

    asyncio.run(scenario())


def test_stop_of_an_unknown_id_is_harmless(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        await runtime.start(ONE, bench.lives(), quiet)
        for force in (False, True):
            await runtime.stop(ReplicaId("never-was"), force=force)
        assert isinstance((await see(runtime))[ONE].state, Running)

    asyncio.run(scenario())


def test_a_stopped_id_can_be_started_again(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        await runtime.start(ONE, bench.lives(), quiet)
        await stop_to_the_end(runtime, ONE, force=True)
        await runtime.start(ONE, bench.lives(), quiet)
        assert isinstance((await see(runtime))[ONE].state, Running)

    asyncio.run(scenario())


def test_an_engine_that_refuses_to_stop_goes_by_force(local: LocalBench) -> None:
    async def scenario() -> None:
        runtime = local.runtime()
        await runtime.start(ONE, local.stubborn(), quiet)
        if not isinstance(runtime, FakeRuntime):
            await wait_for_log(runtime, ONE, "deaf")
        for _ in range(3):
            await runtime.stop(ONE, force=False)
        assert isinstance((await see(runtime))[ONE].state, Running)
        began = time.monotonic()
        await runtime.stop(ONE, force=True)
        assert time.monotonic() - began < 1
        await stop_to_the_end(runtime, ONE, force=True)

    asyncio.run(scenario())


def test_memory_is_held_until_the_last_process_is_gone(local: LocalBench) -> None:
    async def scenario() -> None:
        runtime = local.runtime()
        await runtime.start(ONE, local.leaves_processes(), quiet)
        assert await wait_for_exit(runtime, ONE) == Exited("exited with code 0", 1)
        await runtime.stop(ONE, force=False)
        assert (await see(runtime))[ONE].state == Exited("exited with code 0", 1)
        assert (await see(local.runtime()))[ONE].state == Exited("exited with code 0", 1)
        await stop_to_the_end(runtime, ONE, force=True)

    asyncio.run(scenario())


def test_a_running_replica_tells_its_memory(local: LocalBench) -> None:
    async def scenario() -> None:
        runtime = local.runtime()
        await runtime.start(ONE, local.lives(), quiet)
        state = (await see(runtime))[ONE].state
        assert isinstance(state, Running)
        assert state.memory_bytes is not None
        assert state.memory_bytes > 0

    asyncio.run(scenario())


def test_to_look_again_changes_nothing_but_figures(bench: Bench) -> None:
    async def scenario() -> None:
        runtime = bench.runtime()
        runtime.look_again(ReplicaId("never-was"))
        await runtime.start(ONE, bench.lives(), quiet)
        before = await see(runtime)
        runtime.look_again(ONE)
        assert {id: one.state.__class__ for id, one in (await see(runtime)).items()} == {ONE: Running}
        assert before.keys() == {ONE}

    asyncio.run(scenario())


def test_logs_of_what_never_was_are_empty(bench: Bench) -> None:
    async def scenario() -> None:
        assert await bench.runtime().logs(ReplicaId("never-was"), 10) == []

    asyncio.run(scenario())

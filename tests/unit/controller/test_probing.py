"""Whether a replica works: asked of real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from modelgrid.controller.phases import Phases
from modelgrid.controller.probes import Probes
from modelgrid.controller.reading import Reading
from modelgrid.spec import EngineLoad, FirstRequest, Launch, ModelName, ReplicaId, Running
from unit.controller.stage import Clock, Engine, open_engine, until

A = ReplicaId("a-1")
LAUNCH = Launch(ModelName("a"), "r", "a", key="secret", first_request=FirstRequest("/v1/chat/completions", b"{}"))


def running(port: int) -> Running:
    root = f"http://127.0.0.1:{port}"
    return Running(f"{root}/v1", root)


@contextlib.asynccontextmanager
async def probing() -> AsyncIterator[tuple[Probes, Engine]]:
    probes, engine = Probes(lambda: None, Clock()), await open_engine()
    try:
        yield probes, engine
    finally:
        await probes.close()
        await engine.close()


def play(scene: Callable[[Probes, Engine], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with probing() as (probes, engine):
            await scene(probes, engine)

    asyncio.run(whole())


def test_health_first_then_one_request_with_the_key() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        phases = Phases()
        phases.enter("load", Clock()())
        probes.probe(A, running(engine.port), LAUNCH, 60.0, phases)
        await until(lambda: A in probes.served)
        assert engine.asked[:2] == ["/health", "/v1/chat/completions"]
        assert engine.keys == {"Bearer secret"}
        assert list(phases.seconds(0)) == ["load", "first_request"]
        assert phases.ended is not None

    play(scene)


def test_what_is_waited_for_is_told_step_by_step() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # bound, and not listening
            probes.probe(ReplicaId("b-1"), running(nobody.getsockname()[1]), LAUNCH, 60.0, None)
            await until(lambda: ReplicaId("b-1") in probes.unready)
        engine.status = 500
        engine.statuses["/health"] = 503
        probes.probe(A, running(engine.port), LAUNCH, 60.0, None)
        await until(lambda: probes.unready.get(A) == "GET /health answered 503")
        engine.statuses["/health"] = 200
        await until(lambda: probes.unready.get(A) == "POST /v1/chat/completions answered 500")
        engine.status = 400
        await until(lambda: A in probes.served)
        assert A not in probes.unready
        assert ReplicaId("b-1") not in probes.served

    play(scene)


def test_who_does_not_take_our_key_is_sick_at_once() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        engine.statuses["/v1/chat/completions"] = 401
        probes.probe(A, running(engine.port), LAUNCH, 60.0, None)
        await until(lambda: A in probes.sick)
        assert "another key" in probes.sick[A]
        assert A not in probes.served

    play(scene)


def test_who_fails_for_too_long_is_sick_and_who_answers_again_is_not() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        engine.statuses["/health"] = 503
        probes.watch(A, running(engine.port), LAUNCH, 0.0)
        await until(lambda: A in probes.sick)
        assert probes.sick[A] == "its health check has failed for 0s (health_timeout): GET /health answered 503"
        engine.statuses["/health"] = 200
        probes.nudge(A)
        await until(lambda: A not in probes.sick)
        assert set(engine.asked) == {"/health"}

    play(scene)


def test_a_failed_check_or_two_is_no_sickness() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        engine.statuses["/health"] = 503
        probes.watch(A, running(engine.port), LAUNCH, 60.0)
        for count in (1, 2, 3):
            await until(lambda: len(engine.asked) >= count)  # noqa: B023  awaited before the next turn
            probes.nudge(A)
        assert probes.sick == {}

    play(scene)


def test_who_is_no_longer_kept_is_forgotten() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        probes.probe(A, running(engine.port), LAUNCH, 60.0, None)
        await until(lambda: A in probes.served)
        probes.keep(frozenset({A}))
        assert probes.served == {A}
        probes.keep(frozenset())
        assert probes.served == set()
        probes.nudge(A)  # harmless

    play(scene)


def test_what_an_engine_says_of_its_load_is_known_until_it_says_it_no_more() -> None:
    async def scene(probes: Probes, engine: Engine) -> None:
        engine.bodies["/metrics"] = b"# HELP\nrunning 2\nwaiting 1\n"
        launch = replace(LAUNCH, load=EngineLoad("/metrics", "running", "waiting"))
        probes.watch(A, running(engine.port), launch, 60.0)
        await until(lambda: probes.loads == {A: Reading(2, 1)})
        engine.statuses["/metrics"] = 500
        probes.nudge(A)
        await until(lambda: probes.loads == {})

    play(scene)

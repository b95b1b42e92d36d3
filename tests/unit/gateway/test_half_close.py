"""Callers who say that they send no more: some wait for their answer, and some are gone."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from time import perf_counter

import pytest

from modelgrid.spec import Target
from unit.gateway.world import Asked, Engine, Play, Raw, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
SLOT = 4
GONE_S = 0.05  # until the engine sees that its caller is gone
LOADED_S = 0.5  # the same, for the slowest of several on a machine that does other things


async def stall(asked: Asked) -> None:
    await asked.gone()


def target(engine: Engine) -> Target:
    return engine.target("m-1", slot=SLOT)


async def begin(world: World, headers: str = "", version: str = "1.1") -> Raw:
    caller = await world.call()
    head = f"POST {CHAT} HTTP/{version}\r\nHost: localhost\r\n{headers}Content-Length: {len(BODY)}\r\n\r\n"
    caller.send(head.encode() + BODY)
    return caller


async def whole(caller: Raw) -> tuple[int, bytes]:
    """The answer, after signs of life."""
    answered = await caller.answer()
    while answered.status == 100:
        answered = await caller.answer()
    assert answered.is_whole
    return answered.status, answered.body


@pytest.mark.parametrize("pause_s", [0.0, 0.1, 0.5])
def test_who_half_closes_after_its_request_gets_its_answer(play: Play, pause_s: float) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(target(engine)))
        caller = await begin(world)
        caller.writer.write_eof()
        asked = (await until(lambda: engine.asked))[0]
        await asyncio.sleep(pause_s)
        await asked.sized(b"whole")
        assert await whole(caller) == (200, b"whole")
        assert await caller.is_closed()
        await world.rests()

    play(scene)


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
@pytest.mark.parametrize("pause_s", [0.0, 0.03, 0.5])
def test_who_half_closes_in_the_midst_of_a_stream_gets_all_of_it(play: Play, pause_s: float, headers: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(target(engine)))
        caller = await begin(world, headers)
        asked = (await until(lambda: engine.asked))[0]
        await asked.begin_events()
        await asked.chunk(b"data: 0\n\n")
        assert (await caller.head()).status == 200
        assert await caller.chunk() == b"data: 0\n\n"
        caller.writer.write_eof()
        for number in range(1, 4):
            await asyncio.sleep(pause_s)
            await asked.chunk(b"data: %d\n\n" % number)
            assert await caller.chunk() == b"data: %d\n\n" % number
        await asyncio.sleep(pause_s)
        await asked.chunk(b"")
        assert await caller.chunk() == b""
        assert await caller.is_closed()
        await world.rests()

    play(scene)


def test_who_half_closes_before_a_stream_breaks_reads_why(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(target(engine)))
        caller = await begin(world)
        asked = (await until(lambda: engine.asked))[0]
        await asked.begin_events()
        await asked.chunk(b"data: 0\n\n")
        await caller.head()
        caller.writer.write_eof()
        await asyncio.sleep(0.1)
        asked.drop()
        assert await caller.chunk() == b"data: 0\n\n"
        assert b"engine_lost" in await caller.chunk()
        await world.rests()

    play(scene)


@pytest.mark.parametrize("framing", ["Content-Length: %d", "Connection: close", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_half_closes_while_an_answer_flows_gets_all_of_it(play: Play, framing: str, version: str) -> None:
    pieces, size = 64, 1 << 17

    async def script(asked: Asked) -> None:
        line = framing % (pieces * size) if "%d" in framing else framing
        await asked.say(f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n".encode())
        for _ in range(pieces):
            await (asked.chunk if "chunked" in framing else asked.say)(bytes(size))
            await asyncio.sleep(0.004)
        if "chunked" in framing:
            await asked.chunk(b"")
        else:
            asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(target(engine)))
        caller = await begin(world, version=version)
        reading = asyncio.create_task(caller.answer())
        await until(lambda: engine.asked)
        await asyncio.sleep(0.05)
        caller.writer.write_eof()
        answered = await reading
        assert (len(answered.body), answered.is_whole) == (pieces * size, True)
        await world.rests()

    play(scene)


def test_what_was_asked_ahead_is_answered_too(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(target(engine)))
        caller = await world.call()
        for _ in range(3):
            caller.post(CHAT, BODY)
        caller.writer.write_eof()
        for number in range(3):
            await until(lambda: len(engine.asked) == number + 1)  # noqa: B023  awaited at once
            await engine.asked[number].sized(b"%d" % number)
            engine.asked[number].writer.close()
            assert await whole(caller) == (200, b"%d" % number)
        assert await caller.is_closed()
        await world.rests()

    play(scene)


def test_who_half_closes_while_it_waits_for_a_replica_goes_on_waiting(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await begin(world)
        caller.writer.write_eof()
        await until(lambda: world.controller.demands)
        await asyncio.sleep(0.4)
        engine = await world.engine()
        await world.controller.publish(route(target(engine)))
        assert await whole(caller) == (200, BODY)
        await world.rests()

    play(scene)


def test_who_half_closes_within_its_request_has_none(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(target(engine)))
        for part in (
            b"",
            b"POST /v1/chat",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        ):
            caller = await world.call()
            caller.send(part)
            caller.writer.write_eof()
            assert await caller.is_closed()
        assert engine.asked == []

    play(scene)


# Callers who are gone.


async def until_seen_s(world: World, engine: Engine, caller: Raw, how: str) -> float:
    """How long it takes until the engine sees that the caller left."""
    start = perf_counter()
    if how == "reset":
        connection = caller.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "half":
        caller.writer.write_eof()
        await asyncio.sleep(0)
    caller.leave()
    await until(lambda: not engine.open_connections and not world.counts.waiting(SLOT))
    taken_s = perf_counter() - start
    await world.rests()
    return taken_s


async def before_the_head(world: World, engine: Engine) -> Raw:
    caller = await begin(world)
    await until(lambda: engine.open_connections == 1 and world.counts.in_flight(SLOT) == 1)
    return caller


async def after_the_head(world: World, engine: Engine, headers: str = "") -> Raw:
    caller = await begin(world, headers)
    asked = (await until(lambda: engine.asked))[-1]
    await asked.begin_events()
    await asyncio.sleep(0.01)
    return caller


async def after_the_head_of_the_last(world: World, engine: Engine) -> Raw:
    return await after_the_head(world, engine, "Connection: close\r\n")


async def in_a_stream(world: World, engine: Engine, headers: str = "", version: str = "1.1") -> Raw:
    caller = await begin(world, headers, version)
    asked = (await until(lambda: engine.asked))[-1]
    await asked.begin_events()
    await asked.chunk(b"data: 1\n\n")
    await caller.head()
    return caller


async def in_the_last_stream(world: World, engine: Engine) -> Raw:
    return await in_a_stream(world, engine, "Connection: close\r\n")


async def in_a_stream_of_old(world: World, engine: Engine) -> Raw:
    return await in_a_stream(world, engine, version="1.0")


async def of_old_before_the_head(world: World, engine: Engine) -> Raw:
    caller = await begin(world, version="1.0")
    await until(lambda: engine.open_connections == 1 and world.counts.in_flight(SLOT) == 1)
    return caller


async def in_a_sized_answer(world: World, engine: Engine) -> Raw:
    caller = await begin(world)
    asked = (await until(lambda: engine.asked))[-1]
    await asked.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
    await caller.head()
    return caller


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize(
    "when",
    [
        before_the_head,
        after_the_head,
        after_the_head_of_the_last,
        in_a_stream,
        in_the_last_stream,
        in_a_stream_of_old,
        of_old_before_the_head,
        in_a_sized_answer,
    ],
    ids=lambda when: when.__name__,
)
def test_an_engine_that_sends_nothing_sees_soon_that_its_caller_is_gone(
    play: Play, when: object, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    taken_s: list[float] = []

    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(target(engine)))
        for _ in range(5):
            engine.asked.clear()
            caller = await when(world, engine)  # type: ignore[operator]  # one of the above
            taken_s.append(await until_seen_s(world, engine, caller, how))

    play(scene)
    taken_s.sort()
    with capsys.disabled():
        name = when.__name__.replace("_", " ")  # type: ignore[attr-defined]
        sys.stdout.write(f"\n  gone ({how}) {name}: {taken_s[2] * 1000:.1f} ms, at most {taken_s[-1] * 1000:.1f} ms")
    assert taken_s[2] < GONE_S
    assert taken_s[-1] < LOADED_S


@pytest.mark.parametrize("how", ["close", "half", "reset"])
def test_who_is_gone_waits_no_more(play: Play, how: str) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await until(lambda: world.counts.waiting(SLOT) == 1)
        engine = await world.engine()
        assert await until_seen_s(world, engine, caller, how) < LOADED_S
        await until(lambda: [demand.waiting for demand in world.controller.demands] == [1, 0])

    play(scene)

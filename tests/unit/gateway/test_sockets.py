"""WebSockets: the handshake is relayed, then bytes go both ways as they come, until either side ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable

import pytest

from modelgrid.spec import AccessKey, Choice, Quota, Route, Virtual, metrics
from modelgrid.spec.operations import REALTIME
from unit.gateway.world import Asked, Engine, Play, Raw, Script, World, route, until

REPLICA_SLOT = 4
ASK = (
    "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
    % ACCEPT
)


def agree(then: Callable[[Asked], Awaitable[None]]) -> Script:
    """Take the handshake, and go on so."""

    async def script(asked: Asked) -> None:
        await asked.say(AGREED)
        await then(asked)

    return script


async def mirror(asked: Asked) -> None:
    """Send back what comes, until nothing more does."""
    while data := await asked.reader.read(65536):
        await asked.say(data)
    asked.writer.close()


async def hold(asked: Asked) -> None:
    await asked.gone()


def socket_model(*engines: Engine, model: str = "m", served: str = "org/m", **more: object) -> Route:
    targets = [
        engine.target(f"{model}-{number}", served, key="engine-key", slot=REPLICA_SLOT)
        for number, engine in enumerate(engines, 1)
    ]
    return route(*targets, model=model, operations=(REALTIME,), **more)


async def open_socket(world: World, path: str = "/v1/realtime?model=m", headers: str = "") -> Raw:
    caller = await world.call()
    caller.get(path, ASK + headers)
    answered = await caller.head()
    assert answered.status == 101, await caller.rest()
    assert answered.headers["sec-websocket-accept"] == ACCEPT.decode()
    assert (answered.headers["upgrade"], answered.headers["connection"].lower()) == ("websocket", "upgrade")
    return caller


async def read(caller: Raw, count: int) -> bytes:
    async with asyncio.timeout(10):
        return await caller.reader.readexactly(count)


def test_the_handshake_is_relayed_and_bytes_go_both_ways(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        for data in (b"\x81\x02hi", bytes(range(256)), b"GET / HTTP/1.1\r\n\r\n"):
            caller.send(data)
            assert await read(caller, len(data)) == data
        asked = engine.asked[0]
        assert asked.line == "GET /v1/realtime?model=org%2Fm HTTP/1.1"
        assert asked.headers == {
            "host": f"127.0.0.1:{engine.port}",
            "authorization": "Bearer engine-key",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "x-request-id": asked.headers["x-request-id"],
        }
        caller.leave()
        await world.rests()

    play(scene)


@pytest.mark.parametrize(
    ("query", "arrives"),
    [
        ("model=m", "model=org%2Fm"),
        ("model=alias", "model=org%2Fm"),
        ("a=1&model=m&intent=a%20b+c%FF&empty=&flag", "a=1&model=org%2Fm&intent=a%20b+c%FF&empty=&flag"),
        ("model=%6d", "model=org%2Fm"),
        ("mod%65l=m&x=model=m", "mod%65l=org%2Fm&x=model=m"),
    ],
)
def test_the_models_name_is_all_that_changes_of_the_query(play: Play, query: str, arrives: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine, aliases=("alias",)))
        await open_socket(world, f"/v1/realtime?{query}")
        assert engine.asked[0].line == f"GET /v1/realtime?{arrives} HTTP/1.1"

    play(scene)


def test_a_name_that_needs_it_is_quoted_and_one_that_is_the_same_stays_as_it_came(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine, served="a b&c"))
        await open_socket(world)
        assert engine.asked[0].line == "GET /v1/realtime?model=a%20b%26c HTTP/1.1"
        await world.controller.publish(socket_model(engine, served="m"))
        await open_socket(world, "/v1/realtime?model=%6D")
        assert engine.asked[1].line == "GET /v1/realtime?model=%6D HTTP/1.1"

    play(scene)


def test_subprotocols_are_relayed_but_for_the_callers_key(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(AGREED[:-2] + b"Sec-WebSocket-Protocol: realtime\r\n\r\n")
        await mirror(asked)

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        key = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-ann").hexdigest())
        await world.controller.publish(socket_model(engine), keys=(key,))
        caller = await world.call()
        offered = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.mg-ann, openai-beta.realtime-v1\r\n"
        caller.get("/v1/realtime?model=m", ASK + offered)
        answered = await caller.head()
        assert (answered.status, answered.headers["sec-websocket-protocol"]) == (101, "realtime")
        assert engine.asked[0].headers["sec-websocket-protocol"] == "realtime, openai-beta.realtime-v1"
        assert "mg-ann" not in str(engine.asked[0].headers)
        for headers, status in (("", 401), (offered.replace("mg-ann", "wrong"), 401)):
            other = await world.call()
            other.get("/v1/realtime?model=m", ASK + headers)
            assert (await other.answer()).status == status
        assert len(engine.asked) == 1

    play(scene)


@pytest.mark.parametrize("is_at_once", [True, False])
def test_bytes_that_come_before_the_engine_agrees_are_not_lost(play: Play, is_at_once: bool) -> None:
    async def script(asked: Asked) -> None:
        await may_agree.wait()
        await asked.say(AGREED + b"early from the engine")
        await mirror(asked)

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(socket_model(engine))
        caller = await world.call()
        early = b"early " * 1000
        request = f"GET /v1/realtime?model=m HTTP/1.1\r\nHost: localhost\r\n{ASK}\r\n".encode()
        if is_at_once:
            caller.send(request + early)
            await until(lambda: engine.asked)
        else:
            caller.send(request)
            await until(lambda: engine.asked)
            caller.send(early[:100])
            await asyncio.sleep(0.05)
            caller.send(early[100:])
        await asyncio.sleep(0.05)
        may_agree.set()
        assert (await caller.head()).status == 101
        assert await read(caller, 21 + len(early)) == b"early from the engine" + early

    may_agree = asyncio.Event()
    play(scene)


def test_early_bytes_have_a_limit(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(hold)
        await world.controller.publish(socket_model(engine))
        caller = await world.call()
        caller.get("/v1/realtime?model=m", ASK)
        await until(lambda: engine.asked)
        caller.send(bytes(1 << 20))
        assert await caller.is_closed()
        await world.rests()

    play(scene)


def test_a_caller_who_doesnt_read_slows_the_engine_in_bounded_memory(play: Play) -> None:
    size = 64 << 20
    sent = 0

    async def flood(asked: Asked) -> None:
        nonlocal sent
        for _ in range(size >> 16):
            await asked.say(bytes(1 << 16))
            sent += 1 << 16
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(agree(flood))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size // 2  # the kernel's buffers, and little of ours
        assert len(await read(caller, size)) == size
        caller.leave()
        await world.rests()

    play(scene)


def test_an_engine_that_doesnt_read_slows_the_caller_in_bounded_memory(play: Play) -> None:
    size = 64 << 20
    received = 0

    async def read_late(asked: Asked) -> None:
        nonlocal received
        asked.reader._transport.pause_reading()  # type: ignore[attr-defined]  # the stream reader's own limit is small
        await may_read.wait()
        asked.reader._transport.resume_reading()  # type: ignore[attr-defined]
        while received < size and (data := await asked.reader.read(1 << 20)):
            received += len(data)
        await asked.say(b"!")
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(agree(read_late))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < size:
                caller.send(bytes(1 << 16))
                await caller.writer.drain()
                sent += 1 << 16

        sending = asyncio.create_task(send())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size // 2
        may_read.set()
        await sending
        assert await read(caller, 1) == b"!"
        assert received == size
        caller.leave()
        await world.rests()

    may_read = asyncio.Event()
    play(scene)


@pytest.mark.parametrize("was_full", [True, False])
def test_a_socket_where_only_the_engine_speaks_lives_on_beyond_the_time_for_a_first_byte(
    play: Play, was_full: bool
) -> None:
    size = 32 << 20 if was_full else 1

    async def speak(asked: Asked) -> None:
        await asked.say(bytes(size))
        for _ in range(10):
            await asked.say(b"tick")
            await asyncio.sleep(0.05)
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(agree(speak))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        caller.send(b"begin")
        await asyncio.sleep(0.1)
        await read(caller, size)
        assert await read(caller, 40) == b"tick" * 10

    play(scene, first_byte_timeout_s=0.2, idle_timeout_s=5.0)


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_when_the_caller_ends_so_does_the_engines_side(play: Play, is_abrupt: bool) -> None:
    last = bytearray()

    async def note(asked: Asked) -> None:
        while data := await asked.reader.read(65536):
            last.extend(data)
        ended.set()

    async def scene(world: World) -> None:
        engine = await world.engine(agree(note))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        await until(lambda: world.counts.in_flight(REPLICA_SLOT) == 1)
        caller.send(b"last words")
        if is_abrupt:
            await until(lambda: last)
            caller.writer.transport.abort()
        else:
            caller.leave()
        async with asyncio.timeout(1):
            await ended.wait()
        assert last == b"last words"
        await world.rests()

    ended = asyncio.Event()
    play(scene)


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_when_the_engine_ends_so_does_the_callers_side(play: Play, is_abrupt: bool) -> None:
    async def end(asked: Asked) -> None:
        await asked.say(b"last words")
        await may_end.wait()
        if is_abrupt:
            asked.drop()
        else:
            asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(agree(end))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        assert await read(caller, 10) == b"last words"
        may_end.set()
        assert await caller.is_closed()
        await world.rests()

    may_end = asyncio.Event()
    play(scene)


def test_what_an_engine_said_before_it_ended_reaches_a_slow_caller(play: Play) -> None:
    size = 8 << 20

    async def end(asked: Asked) -> None:
        await asked.say(bytes(size))
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(agree(end))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        await asyncio.sleep(0.1)
        assert len(await read(caller, size)) == size
        assert await caller.is_closed()
        await world.rests()

    play(scene)


def test_a_caller_who_never_reads_is_let_go_of(play: Play) -> None:
    async def flood(asked: Asked) -> None:
        await asked.say(bytes(64 << 20))

    async def scene(world: World) -> None:
        engine = await world.engine(agree(flood))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        connections = metrics.GATEWAY_CONNECTIONS.name
        await until(lambda: world.controller.metered(connections).get(("w1",)) == (1.0,))
        await until(lambda: world.controller.metered(connections).get(("w1",)) == (0.0,))
        await world.rests()
        caller.leave()

    play(scene, idle_timeout_s=1.5)


def test_a_socket_where_nobody_says_anything_ends_after_a_while(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(hold))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        for _ in range(3):
            await asyncio.sleep(0.15)
            caller.send(b"here")
        assert await caller.is_closed()
        await world.rests()

    play(scene, idle_timeout_s=0.3)


def test_a_refused_handshake_is_relayed(play: Play) -> None:
    async def refuse(asked: Asked) -> None:
        await asked.sized(b'{"error":"no"}', "403 Forbidden")

    async def scene(world: World) -> None:
        engine = await world.engine(refuse)
        await world.controller.publish(socket_model(engine))
        caller = await world.call()
        caller.get("/v1/realtime?model=m", ASK)
        answered = await caller.answer()
        assert (answered.status, answered.body, answered.headers["connection"]) == (403, b'{"error":"no"}', "close")
        assert await caller.is_closed()
        await world.rests()

    play(scene)


async def drop(asked: Asked) -> None:
    asked.drop()


async def busy(asked: Asked) -> None:
    await asked.sized(b"{}", "503 Busy")


@pytest.mark.parametrize("script", [drop, busy])
def test_a_handshake_is_tried_with_another_replica(play: Play, script: Script) -> None:
    async def scene(world: World) -> None:
        broken, well = await world.engine(script), await world.engine(agree(mirror))
        await world.controller.publish(socket_model(broken, well))
        caller = await open_socket(world)
        caller.send(b"hi")
        assert await read(caller, 2) == b"hi"
        caller.leave()
        await world.rests()

    play(scene)


def test_it_waits_for_a_cold_model(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(socket_model())
        caller = await world.call()
        caller.get("/v1/realtime?model=m", ASK)
        await until(lambda: world.controller.demands)
        caller.send(b"early")
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine))
        assert (await caller.head()).status == 101
        assert await read(caller, 5) == b"early"

    play(scene)


def test_who_leaves_during_the_handshake_leaves_the_engine_too(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(hold)
        await world.controller.publish(socket_model(engine))
        caller = await world.call()
        caller.get("/v1/realtime?model=m", ASK)
        await until(lambda: engine.asked)
        caller.leave()
        await until(lambda: engine.open_connections == 0)
        await world.rests()

    play(scene)


@pytest.mark.parametrize(
    "headers",
    ["", "Upgrade: websocket\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\n"],
)
def test_without_a_websocket_it_is_said_that_one_is_wanted(play: Play, headers: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine))
        answered = await world.get("/v1/realtime?model=m", headers)
        assert (answered.status, answered.headers["upgrade"]) == (426, "websocket")
        assert json.loads(answered.body)["error"]["code"] == "upgrade_required"
        assert engine.asked == []

    play(scene)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/realtime", 400, "model_required"),
        ("/v1/realtime?model=", 400, "model_required"),
        ("/v1/realtime?model=none", 404, "model_not_found"),
        ("/v1/realtime?model=text", 400, "unsupported_operation"),
    ],
)
def test_what_cant_be_opened_is_answered(play: Play, path: str, status: int, code: str) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(socket_model(), route(model="text"))
        caller = await world.call()
        caller.get(path, ASK)
        answered = await caller.answer()
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (status, code)
        assert await caller.is_closed()

    play(scene)


def test_it_is_in_flight_and_takes_its_quota_while_it_is_open(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        once = socket_model(engine, slot=2, quota=Quota(concurrency=1))
        await world.controller.publish(once)
        caller = await open_socket(world)
        await until(lambda: world.controller.load == {"m-1": 1})
        assert (world.counts.in_flight(2), world.counts.in_flight(REPLICA_SLOT)) == (1, 1)
        other = await world.call()
        other.get("/v1/realtime?model=m", ASK)
        assert (await other.answer()).status == 429
        caller.leave()
        await world.rests()
        (await open_socket(world)).leave()
        await world.rests()
        counted = {("m", "realtime", "", "101"): (2.0,), ("m", "realtime", "", "429"): (1.0,)}
        await until(lambda: world.controller.metered(metrics.REQUESTS.name) == counted)

    play(scene)


def test_behind_a_name_over_models(play: Play) -> None:
    async def scene(world: World) -> None:
        broken, well = await world.engine(drop), await world.engine(agree(mirror))
        name = socket_model(model="both", virtual=Virtual(choices=(Choice(model="a"), Choice(model="b"))))
        await world.controller.publish(
            name, socket_model(broken, model="a", wait_s=0), socket_model(well, model="b", served="org/b")
        )
        await open_socket(world, "/v1/realtime?model=both")
        assert well.asked[0].line == "GET /v1/realtime?model=org%2Fb HTTP/1.1"

    play(scene)


def test_a_workers_end_waits_for_it_and_then_ends_it(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine))
        caller = await open_socket(world)
        world.told.set()
        await until(lambda: world.is_draining)
        caller.send(b"still here")
        assert await read(caller, 10) == b"still here"
        assert await caller.is_closed()
        await until(world.worker.done)
        await until(lambda: engine.open_connections == 0)
        await until(lambda: world.controller.load == {})

    play(scene, grace_s=0.3)


def test_a_socket_over_a_kept_connection(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(mirror))
        await world.controller.publish(socket_model(engine))
        caller = await world.call()
        caller.get("/health")
        assert (await caller.answer()).status == 200
        caller.get("/v1/realtime?model=m", ASK)
        assert (await caller.head()).status == 101
        caller.send(b"hi")
        assert await read(caller, 2) == b"hi"

    play(scene)


def test_an_answer_that_agrees_although_nobody_asked_reaches_nobody(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(agree(hold))
        await world.controller.publish(route(engine.target("m-1"), wait_s=0.1))
        answered = await world.post("/v1/chat/completions", b'{"model":"m"}')
        assert answered.status == 502
        assert b"switched protocols" in answered.body
        await world.rests()

    play(scene)

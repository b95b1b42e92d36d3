"""One caller's connection: what is read, in which order, and how much."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter

import pytest

from modelgrid.gateway.options import PIPELINED_BYTES
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


def code_of(body: bytes) -> str:
    code: str = json.loads(body)["error"]["code"]
    return code


def test_pipelined_requests_are_answered_in_order(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        bodies = [b'{"model":"m","n":%d}' % n for n in range(20)]
        for body in bodies:
            caller.post(CHAT, body)
            caller.get("/health")
        for body in bodies:
            assert (await caller.answer()).body == body
            assert b'"status":"ok"' in (await caller.answer()).body

    play(scene)


def test_requests_that_come_while_one_is_answered_wait_their_turn(play: Play) -> None:
    async def slow(asked: Asked) -> None:
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine()
        engine.once.append(slow)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        first = (await until(lambda: engine.asked))[0]
        for number in range(400):
            caller.post(CHAT, b'{"model":"m","n":%d}' % number)
        await caller.writer.drain()
        assert len(engine.asked) == 1
        await first.sized(b'"first"')
        first.drop()
        assert (await caller.answer()).body == b'"first"'
        for number in range(400):
            assert (await caller.answer()).body == b'{"model":"m","n":%d}' % number

    play(scene)


def test_a_caller_who_sends_too_much_ahead_is_dropped_and_its_engine_sees_it_leave(play: Play) -> None:
    async def scene(world: World) -> None:
        left: list[bool] = []

        async def slow(asked: Asked) -> None:
            await asked.gone()
            left.append(True)

        engine = await world.engine(slow)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked)
        caller.send(PIPELINED_BYTES * b"x")
        caller.leave()
        await until(lambda: left)

        greedy = await world.call()
        greedy.post(CHAT, BODY)
        await until(lambda: len(engine.asked) == 2)
        greedy.send(PIPELINED_BYTES * b"x" + b"x")
        assert await greedy.is_closed()
        await until(lambda: len(left) == 2)
        await until(lambda: world.controller.load == {})

    play(scene)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_chunked_body_is_taken_however_it_is_cut(play: Play, size: int) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        body = b'{"model":"m","p":"' + b"x" * 300 * size + b'"}'
        caller.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), size):
            part = body[at : at + size]
            caller.send(b"%x\r\n%b\r\n" % (len(part), part))
        caller.send(b"0\r\nX-Trailer: no\r\n\r\n")
        assert (await caller.answer()).body == body
        assert "x-trailer" not in engine.asked[0].headers
        assert "transfer-encoding" not in engine.asked[0].headers

    play(scene)


def test_a_request_that_comes_byte_by_byte_is_read(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for letter in POST + b"Content-Length: 13\r\nX-A: b\r\n\r\n" + BODY:
            caller.send(bytes([letter]))
            await caller.writer.drain()
        assert (await caller.answer()).body == BODY
        assert engine.asked[0].headers["x-a"] == "b"

    play(scene)


def test_who_asks_whether_to_send_the_body_is_told_to(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.send(POST + b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n")
        assert (await caller.head()).status == 100
        caller.send(BODY)
        assert (await caller.answer()).body == BODY
        assert "expect" not in engine.asked[0].headers

    play(scene)


def test_who_asks_whether_to_send_too_much_is_told_not_to(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(POST + b"Expect: 100-continue\r\nContent-Length: 1300\r\n\r\n")
        answered = await caller.answer()
        assert (answered.status, answered.headers["connection"]) == (413, "close")
        assert await caller.is_closed()

    play(scene, body_bytes=1000)


def test_a_chunked_body_over_the_limit_is_refused_and_the_caller_can_read_why(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(300):
            caller.send(b"8000\r\n" + bytes(0x8000) + b"\r\n")
            await caller.writer.drain()  # it sends all before it reads
        answered = await caller.answer()
        assert (answered.status, code_of(answered.body)) == (413, "body_too_large")
        assert await caller.is_closed()

    play(scene, body_bytes=100_000)


def test_bodies_together_have_a_limit_and_make_room_when_they_go(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        large = POST + b"Content-Length: 800\r\n\r\n" + bytes(700)
        first, second = await world.call(), await world.call()
        first.send(large)
        await first.writer.drain()
        second.send(large)
        answered = await second.answer()
        assert (answered.status, code_of(answered.body)) == (503, "too_many_bodies")
        first.leave()

        async def works() -> bool:
            return (await world.post(CHAT, b'{"model":"x"}' + b" " * 700)).status == 404

        while not await works():
            pass
        for _ in range(3):
            assert await works()

    play(scene, bodies_bytes=1000)


def test_what_was_held_of_small_bodies_is_not_held_for_ever(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for _ in range(30):
            caller.send(POST + b"Transfer-Encoding: chunked\r\n\r\nd\r\n" + BODY + b"\r\n0\r\n\r\n")
            assert (await caller.answer()).body == BODY

    play(scene, bodies_bytes=100)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"GET /health HTTP/1.1\r\nX: " + b"y" * 70_000,
    ],
)
def test_a_head_over_the_limit_is_refused(play: Play, head: bytes) -> None:
    async def scene(world: World) -> None:
        caller = await world.call()
        caller.send(head)
        answered = await caller.answer()
        assert (answered.status, code_of(answered.body)) == (431, "headers_too_large")
        assert await caller.is_closed()

    play(scene)


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        POST + b"Content-Length: -3\r\n\r\nabc",
        POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nA : b\r\n\r\n",
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT host:80 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused_and_the_connection_closed(play: Play, request_: bytes) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(request_ + b"GET /health HTTP/1.1\r\n\r\n")
        answered = await caller.answer()
        assert answered.status in (400, 405, 501)
        assert answered.headers["connection"] == "close"
        assert await caller.is_closed()

    play(scene)


def test_what_is_refused_comes_after_what_was_asked_before(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        caller.send(b"nonsense\r\n\r\n")
        assert (await caller.answer()).body == BODY
        assert (await caller.answer()).status == 400
        assert await caller.is_closed()

    play(scene)


def test_an_offer_to_upgrade_is_overlooked(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for _ in range(2):
            caller.post(
                CHAT, BODY, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nX-A: b\r\n"
            )
            assert (await caller.answer()).body == BODY
        assert engine.asked[0].headers["x-a"] == "b"
        assert "upgrade" not in engine.asked[0].headers

    play(scene)


def test_head_is_get_without_a_body(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.get("/v1/models")
        whole = await caller.answer()
        caller.get("/v1/models", method="HEAD")
        bare = await caller.answer(to_head=True)
        assert (bare.status, bare.headers["content-length"]) == (200, whole.headers["content-length"])
        caller.get("/health")
        assert (await caller.answer()).status == 200

    play(scene)


def test_a_connection_is_kept_as_its_caller_wants(play: Play) -> None:
    async def scene(world: World) -> None:
        for request, connection in (
            (b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", None),
            (b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "close"),
            (b"GET /health HTTP/1.0\r\n\r\n", "close"),
            (b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
        ):
            caller = await world.call()
            caller.send(request)
            assert (await caller.answer()).headers.get("connection") == connection
            if connection == "close":
                assert await caller.is_closed()
            else:
                caller.send(request)
                assert (await caller.answer()).status == 200

    play(scene)


def test_slow_senders_and_idle_callers_are_not_waited_for(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        start = perf_counter()
        head, body, idle = await world.call(), await world.call(), await world.call()
        head.send(b"GET /health HTT")
        body.send(POST + b"Content-Length: 13\r\n\r\n{")
        assert ((await head.answer()).status, (await body.answer()).status) == (408, 408)
        assert await idle.is_closed()
        assert perf_counter() - start < 5

    play(scene, header_timeout_s=0.1, keep_alive_s=0.2)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /health HTTP/1.1\r\nX: ",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
)
def test_a_byte_now_and_then_gains_no_time(play: Play, start: bytes) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(start)
        began = perf_counter()
        answer = asyncio.ensure_future(caller.answer())
        while not answer.done():
            caller.send(b"x")
            await asyncio.wait([answer], timeout=0.01)
        assert (await answer).status == 408
        assert perf_counter() - began < 5

    play(scene, header_timeout_s=0.2)


def test_a_body_that_comes_part_by_part_is_waited_for(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        body = b'{"model":"m"}' + b" " * 12
        caller.send(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        answer = asyncio.ensure_future(caller.answer())
        for letter in body:
            caller.send(bytes([letter]))
            await asyncio.wait([answer], timeout=0.05)
        assert (await answer).body == body

    play(scene, header_timeout_s=1.0, body_bytes_per_s=1)


def test_connections_have_a_limit(play: Play) -> None:
    async def scene(world: World) -> None:
        callers = [await world.call() for _ in range(3)]
        for caller in callers[:2]:
            caller.get("/health")
            assert (await caller.answer()).status == 200
        answered = await callers[2].answer()
        assert (answered.status, code_of(answered.body)) == (503, "too_many_connections")
        assert b"2 are open (try again soon, or raise gateway.connections)" in answered.body
        assert answered.headers["retry-after"] == "1"

    play(scene, connections=2)


def test_a_caller_who_never_reads_is_dropped(play: Play) -> None:
    async def flood(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        await asked.say(bytes(99_999_999))

    async def scene(world: World) -> None:
        engine = await world.engine(flood)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: world.controller.load == {"m-1": 1})
        await until(lambda: world.controller.load == {})

    play(scene, idle_timeout_s=0.3)


def test_a_caller_who_does_not_read_is_served_no_more_until_it_does(play: Play) -> None:
    big = b'{"x":"' + b"y" * 300_000 + b'"}'

    async def scene(world: World) -> None:
        async def script(asked: Asked) -> None:
            await asked.sized(big)

        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        raw = await world.call()
        for _ in range(3):  # its head is known now
            raw.post(CHAT, BODY)
            assert (await raw.answer()).body == big
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        before = len(engine.asked)
        for _ in range(60):
            raw.post(CHAT, BODY)
            await asyncio.sleep(0.005)
        served = len(engine.asked) - before
        assert served < 40, "it was served as if it read"
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(60):
            assert (await raw.answer()).body == big

    play(scene)

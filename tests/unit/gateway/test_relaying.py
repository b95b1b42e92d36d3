"""What goes on to an engine, and what comes back."""

from __future__ import annotations

import asyncio
import hashlib
import json
from time import perf_counter

import pytest

from modelgrid.spec import AccessKey, Route
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{ "model":"m" , "xtra":1.50,"messages":[{"role":"user","content":"h\\u00fc","odd":null}]}'


async def wait_for_leave(asked: Asked) -> None:
    await asked.gone()


async def events(asked: Asked) -> None:
    await asked.begin_events()
    await asked.chunk(b'data: {"choices":[{"delta":{"content":"one "}}]}\n\n')
    await asked.chunk(b'data: {"choices":[{"delta":{"content":"tw\xc3')
    await asked.chunk(b'\xb6"}}]}\n\ndata: [DONE]\n\n')
    await asked.chunk(b"")


def test_the_body_goes_on_as_it_came(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.body) == (200, BODY)
        assert engine.asked[0].line == "POST /v1/chat/completions HTTP/1.1"
        assert engine.asked[0].body == BODY

    play(scene)


def test_only_the_models_name_is_changed_for_an_engine_that_knows_another(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1", model="org/served"), aliases=("gpt-4o-mini",)))
        for name in (b"m", b"gpt-4o-mini"):
            body = BODY.replace(b'"m"', b'"' + name + b'"')
            answered = await world.post(CHAT, body)
            assert answered.body == BODY.replace(b'"m"', b'"org/served"')

    play(scene)


def test_headers_go_on_but_for_those_of_this_hop_and_what_tells_of_the_caller(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        key = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"caller-secret").hexdigest())
        await world.controller.publish(route(engine.target("m-1", key="engine-secret")), keys=(key,))
        await world.post(
            CHAT + "?api-version=1",
            BODY,
            "Authorization: Bearer caller-secret\r\nX-Api-Key: caller-secret\r\nX-Custom: yes\r\nTE: trailers\r\n"
            "Connection: keep-alive, X-Hop\r\nX-Hop: no\r\nKeep-Alive: 5\r\nX-Request-Id: mine\r\n"
            "Cookie: a=b\r\nOrigin: http://localhost:3000\r\nReferer: http://localhost:3000/chat\r\n",
        )
        assert engine.asked[0].line == "POST /v1/chat/completions?api-version=1 HTTP/1.1"
        assert engine.asked[0].headers == {
            "host": f"127.0.0.1:{engine.port}",
            "authorization": "Bearer engine-secret",
            "x-custom": "yes",
            "x-request-id": "mine",
            "content-length": str(len(BODY)),
        }

    play(scene)


def test_every_header_that_a_connection_header_names_ends_here_also_where_it_comes_twice(play: Play) -> None:
    hop = "Connection: keep-alive\r\nConnection: X-One\r\nConnection: X-Two\r\nX-One: 1\r\nX-Two: 2\r\n"

    async def script(asked: Asked) -> None:
        await asked.sized(b"{}", headers=hop)

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY, hop)
        assert engine.asked[0].headers.keys() == {"host", "x-request-id", "content-length"}
        assert answered.headers.keys() == {"content-type", "x-request-id", "content-length"}

    play(scene)


def test_a_request_without_an_id_gets_one_and_its_answer_too(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert answered.headers["x-request-id"] == engine.asked[0].headers["x-request-id"] != ""

    play(scene)


def test_the_engines_answer_comes_back_as_it_is_errors_too(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.sized(b'{"error":"teapot"}', "418 Teapot", "X-Engine: e\r\nX-Request-Id: 7\r\nKeep-Alive: 9\r\n")

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.body) == (418, b'{"error":"teapot"}')
        assert answered.headers == {
            "content-type": "application/json",
            "x-engine": "e",
            "x-request-id": "7",
            "content-length": "18",
        }

    play(scene)


def test_events_are_relayed_each_at_once(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(wait_for_leave)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        asked = (await until(lambda: engine.asked))[0]
        await asked.begin_events()
        for number in range(3):
            event = b"data: %d\n\n" % number
            await asked.chunk(event)
            if number == 0:
                assert (await caller.head()).headers["content-type"] == "text/event-stream"
            assert await caller.chunk() == event
        await asked.chunk(b"")
        assert await caller.chunk() == b""

    play(scene)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_ends_with_its_connection_is_whole(play: Play, version: str) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nsome ")
        await asked.say(b"bytes")
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.send(
            b"POST %b HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), version.encode(), len(BODY), BODY)
        )
        answered = await caller.answer()
        assert (answered.body, answered.is_whole) == (b"some bytes", True)
        assert ("transfer-encoding" in answered.headers) == (version == "1.1")

    play(scene)


def test_an_engine_may_say_to_go_on_before_it_answers(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await asked.sized(b"{}")

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.body) == (200, b"{}")
        assert "link" not in answered.headers

    play(scene)


def test_an_answer_without_a_body_has_none(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for _ in range(2):
            caller.post(CHAT, BODY)
            answered = await caller.answer()
            assert (answered.status, "content-length" in answered.headers) == (204, False)
        assert engine.connections == 1

    play(scene)


def test_connections_to_an_engine_are_kept(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        for _ in range(5):
            await world.post(CHAT, BODY)
        assert engine.connections == 1

    play(scene)


def test_a_slow_reader_slows_the_engine_and_gets_everything(play: Play) -> None:
    size = 64 << 20
    sent = 0

    async def script(asked: Asked) -> None:
        nonlocal sent
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            await asked.say(bytes(1 << 16))
            sent += 1 << 16

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await caller.head()
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size // 2  # the kernel's buffers, and little of ours
        assert len(await caller.reader.readexactly(size)) == size

    play(scene)


@pytest.mark.parametrize("begun", [False, True])
def test_an_engine_sees_at_once_that_the_caller_left(play: Play, begun: bool) -> None:
    left: list[float] = []

    async def script(asked: Asked) -> None:
        if begun:
            await asked.begin_events()
            await asked.chunk(b"data: 1\n\n")
        await asked.gone()
        left.append(perf_counter())

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked)
        if begun:
            await caller.head()
        await until(lambda: world.controller.load == {"m-1": 1})
        start = perf_counter()
        caller.leave()
        await until(lambda: left)
        assert left[0] - start < 1
        await until(lambda: world.controller.load == {})

    play(scene)


def test_plain_text_becomes_a_chat_and_its_stream_text(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(events)
        await world.controller.publish(route(engine.target("r-1", model="org/m"), model="org/m"))
        answered = await world.post("/v1/chat/org/m", "say ü".encode(), "Content-Type: text/plain\r\n")
        assert (answered.status, answered.body, answered.is_whole) == (200, "one twö".encode(), True)
        assert answered.headers["content-type"] == "text/plain; charset=utf-8"
        asked = engine.asked[0]
        assert asked.line == "POST /v1/chat/completions HTTP/1.1"
        assert asked.headers["content-type"] == "application/json"
        assert json.loads(asked.body) == {
            "model": "org/m",
            "messages": [{"role": "user", "content": "say ü"}],
            "stream": True,
        }

    play(scene)


def test_plain_text_comes_as_it_is_made(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(wait_for_leave)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post("/v1/chat/m", b"hi")
        asked = (await until(lambda: engine.asked))[0]
        await asked.begin_events()
        await asked.chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        assert (await caller.head()).status == 200
        assert await caller.chunk() == b"a"

    play(scene)


def test_plain_text_errors_are_text_with_the_engines_status(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.sized(b'{"error":{"message":"too long"}}', "400 Bad Request")

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post("/v1/chat/m", b"hi")
        assert (answered.status, answered.body) == (400, b"the engine of m answered 400: too long\n")
        assert answered.headers["content-type"].startswith("text/plain")
        assert (await world.post("/v1/chat/none", b"hi")).body.startswith(b"cannot find the model 'none'")

    play(scene)


def test_plain_text_from_an_engine_that_does_not_stream(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.sized(b'{"choices":[{"message":{"content":"whole"}}]}')

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        assert (await world.post("/v1/chat/m", b"hi")).body == b"whole"

    play(scene)


def test_plain_text_from_an_engine_that_does_not_stream_is_whole_or_an_error(play: Play) -> None:
    async def script(asked: Asked) -> None:
        text = b"x" * len(json.loads(asked.body)["messages"][0]["content"])
        await asked.sized(b'{"choices":[{"message":{"content":"%b"}}]}' % text)

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        large, too_large = b"y" * (1 << 20), b"y" * (4 << 20)
        assert (await world.post("/v1/chat/m", large)).body == b"x" * len(large)
        answered = await world.post("/v1/chat/m", too_large)
        assert answered.status == 502
        assert b"it sent an answer larger than 4.0 MiB that is no stream" in answered.body
        await until(lambda: world.controller.load == {})

    play(scene)


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_within_a_plain_text_stream_is_never_a_whole_answer(play: Play, begun: bool) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        if begun:
            await asked.chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
            await asyncio.sleep(0.05)
        await asked.chunk(b'data: {"error":{"message":"out of memory"}}\n\n')
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post("/v1/chat/m", b"hi")
        assert not answered.is_whole or b"out of memory" in answered.body
        await until(lambda: world.controller.load == {})

    play(scene)


def test_models_are_listed_and_described_by_any_of_their_names(play: Play) -> None:
    async def scene(world: World) -> None:
        described = Route(
            model="org/m", aliases=("gpt",), operations=("chat",), created=7, state="ready", why="", targets=()
        )
        await world.controller.publish(described)
        expected = {
            "id": "org/m",
            "object": "model",
            "created": 7,
            "owned_by": "modelgrid",
            "aliases": ["gpt"],
            "operations": ["chat"],
            "state": "ready",
        }
        assert json.loads((await world.get("/v1/models")).body) == {"object": "list", "data": [expected]}
        for path in ("org/m", "org%2Fm", "gpt"):
            assert json.loads((await world.get(f"/v1/models/{path}")).body) == expected
        assert (await world.get("/v1/models/none")).status == 404

    play(scene)

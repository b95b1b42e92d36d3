"""Each row of the table of endpoints, from a caller to an engine and back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from pathlib import Path

import pytest

from modelgrid.gateway.endpoints import ENDPOINTS, Act, Endpoint
from modelgrid.spec import AccessKey, Quota, Target, Unavailable
from modelgrid.spec.operations import CHAT, COUNT_TOKENS, MESSAGES, OPERATIONS
from unit.gateway.world import Asked, Play, World, route, until

ODD = b'{ "model":"m" , "xtra":1.50,"dup":1,"dup":2,"text":"h\\u00fc","odd":null}'
FORM_TYPE = "Content-Type: multipart/form-data; boundary=xyz\r\n"
FORM = b"--xyz\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--xyz--\r\n"


def rows(*acts: Act) -> list[object]:
    return [pytest.param(row, id=f"{row.method} {row.path}") for row in ENDPOINTS if row.act in acts]


def engines_path(row: Endpoint) -> str:
    """Below the engine's base, which is /engine/v1, or beside that."""
    path = row.path.replace("{id}", "id_1")
    return f"/engine{path}"


def at_base(target: Target) -> Target:
    """An engine whose base URL has more before its version."""
    return Target(replica=target.replica, url=target.url.replace("/v1", "/engine/v1"), model=target.model, slot=1)


@pytest.mark.parametrize("row", rows(Act.RELAY))
def test_a_body_reaches_the_engines_path_as_it_came_and_so_does_the_answer(play: Play, row: Endpoint) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(at_base(engine.target("m-1")), operations=(row.operation,)))
        answered = await world.post(row.path + "?a=%20b", ODD, "Content-Type: application/json\r\n")
        assert (answered.status, answered.body) == (200, ODD)
        assert engine.asked[0].line == f"POST {engines_path(row)}?a=%20b HTTP/1.1"
        assert engine.asked[0].body == ODD
        await world.rests()

    play(scene)


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if row.uploads], ids=lambda row: row.path)
def test_a_form_does_too(play: Play, row: Endpoint) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(at_base(engine.target("m-1")), operations=(row.operation,)))
        answered = await world.post(row.path, FORM, FORM_TYPE)
        assert (answered.status, answered.body) == (200, FORM)
        assert engine.asked[0].line == f"POST {engines_path(row)} HTTP/1.1"
        assert engine.asked[0].headers["content-type"] == "multipart/form-data; boundary=xyz"
        await world.rests()

    play(scene)


@pytest.mark.parametrize("row", rows(Act.OBJECT))
def test_what_an_engine_made_is_asked_for_by_its_own_path(play: Play, row: Endpoint) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(at_base(engine.target("m-1")), operations=(row.operation,)))
        caller = await world.call()
        caller.get(row.path.replace("{id}", "id_1"), method=row.method)
        assert (await caller.answer()).status == 200
        assert engine.asked[0].line == f"{row.method} {engines_path(row)} HTTP/1.1"

    play(scene)


@pytest.mark.parametrize("row", rows(Act.RELAY))
def test_a_model_whose_engine_does_something_else_names_those_that_do(play: Play, row: Endpoint) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        others = tuple(operation for operation in OPERATIONS if operation != row.operation)
        await world.controller.publish(
            route(engine.target("m-1"), operations=others), route(model="able", operations=(row.operation,))
        )
        answered = await world.post(row.path, ODD)
        error = json.loads(answered.body)["error"]
        assert answered.status == 400
        assert f"for {row.operation}" in error["message"]
        assert "there are able" in error["message"]
        assert engine.asked == []

    play(scene)


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if row.act is not Act.CONTROL], ids=lambda row: f"{row.path}")
def test_another_method_is_told_the_right_ones(play: Play, row: Endpoint) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        path = row.path.replace("{id}", "id_1").replace("{model}", "x").replace("{rest}", "status")
        caller = await world.call()
        caller.get(path, method="PATCH")
        answered = await caller.answer()
        assert (answered.status, row.method in answered.headers["allow"].split(", ")) == (405, True)
        if "GET" not in answered.headers["allow"]:
            caller.get(path, method="HEAD")
            assert (await caller.answer(to_head=True)).status == 405

    play(scene)


def test_a_path_that_is_not_in_the_table_reaches_no_engine(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1"), operations=OPERATIONS))
        for path in (
            "/v1/load_lora_adapter",
            "/update_weights",
            "/v1/chat/completions/../../update_weights",
            "/v1//chat/completions",
            "/v1/chat%2fcompletions/x",
            "/sleep",
            "/metrics/x",
            "/tokenize/../sleep",
        ):
            assert (await world.post(path, ODD)).status in (404, 405, 400), path
        assert engine.asked == []

    play(scene)


# A path that a model has for itself.


def test_a_path_of_a_models_own_takes_any_body_and_goes_to_it(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        mine = route(at_base(engine.target("m-1", "org/m")), endpoint="/v1/mine/generate", operations=("chat",))
        await world.controller.publish(mine)
        body = bytes(range(256))
        answered = await world.post("/v1/mine/generate?x=1", body, "Content-Type: application/octet-stream\r\n")
        assert (answered.status, answered.body) == (200, body)
        assert engine.asked[0].line == "POST /engine/v1/mine/generate?x=1 HTTP/1.1"
        assert engine.asked[0].headers["content-type"] == "application/octet-stream"
        assert (await world.get("/v1/mine/generate")).headers["allow"] == "POST"
        await world.rests()

    play(scene)


def test_a_path_of_a_models_own_waits_streams_and_ends_with_its_table(play: Play) -> None:
    async def events(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        await world.controller.publish(route(endpoint="/mine"))
        caller = await world.call()
        caller.post("/mine", b"x")
        await until(lambda: world.controller.demands)
        engine = await world.engine(events)
        await world.controller.publish(route(engine.target("m-1"), endpoint="/mine"))
        assert (await caller.answer()).body == b"data: 1\n\n"
        assert engine.asked[0].line == "POST /mine HTTP/1.1"
        caller.post("/mine", b"x")
        assert (await caller.answer()).status == 200
        await world.controller.publish(route(engine.target("m-1")))
        caller.post("/mine", b"x")
        assert (await caller.answer()).status == 404

    play(scene)


def test_a_path_of_a_models_own_is_for_its_keys_within_its_quota(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        keys = tuple(
            AccessKey(id=name, name=name, sha256=hashlib.sha256(name.encode()).hexdigest(), models=models)
            for name, models in (("ann", None), ("bob", ("other",)))
        )
        mine = route(engine.target("m-1"), endpoint="/mine", slot=2, quota=Quota(requests_per_minute=1))
        await world.controller.publish(mine, keys=keys)
        assert (await world.post("/mine", b"x")).status == 401
        assert (await world.post("/mine", b"x", "Authorization: Bearer bob\r\n")).status == 403
        assert (await world.post("/mine", b"x", "Authorization: Bearer ann\r\n")).status == 200
        assert (await world.post("/mine", b"x", "Authorization: Bearer ann\r\n")).status == 429

    play(scene)


# Anthropic's.


def anthropic_error(body: bytes) -> str:
    read = json.loads(body)
    assert (read["type"], sorted(read["error"])) == ("error", ["message", "type"])
    return str(read["error"]["type"])


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_errors_have_the_shape_that_anthropics_client_reads(play: Play, path: str) -> None:
    async def scene(world: World) -> None:
        key = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"ann").hexdigest(), models=("m", "off", "chat"))
        operations = (MESSAGES, COUNT_TOKENS)
        await world.controller.publish(
            route(operations=operations, queue=0),
            route(model="off", operations=operations, unavailable=Unavailable(why="no", retry_after_s=9)),
            route(model="chat", operations=(CHAT,)),
            route(model="hidden", operations=operations),
            keys=(key,),
        )
        ann = "X-Api-Key: ann\r\n"
        for body, headers, status, kind in (
            (b'{"model":"m"}', "", 401, "authentication_error"),
            (b'{"model":"m"}', "X-Api-Key: no\r\n", 401, "authentication_error"),
            (b'{"model":"hidden"}', ann, 403, "permission_error"),
            (b'{"model":"none"}', ann, 404, "not_found_error"),
            (b'{"model":"chat"}', ann, 400, "invalid_request_error"),
            (b'{"model":', ann, 400, "invalid_request_error"),
            (b"{}", ann, 400, "invalid_request_error"),
            (b'{"model":"off"}', ann, 503, "overloaded_error"),
            (b'{"model":"m"}', ann, 503, "overloaded_error"),
            (b'{"model":"m","x":"%b"}' % (b"y" * 2000), ann, 413, "request_too_large"),
            (b"x", ann + "Content-Encoding: gzip\r\n", 415, "invalid_request_error"),
        ):
            answered = await world.post(path, body, headers)
            assert (answered.status, anthropic_error(answered.body)) == (status, kind), body[:50]

    play(scene, body_bytes=1000)


def test_a_chunked_body_that_is_too_large_too(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(operations=(MESSAGES,)))
        caller = await world.call()
        caller.send(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        caller.send(b"7d0\r\n" + b" " * 2000 + b"\r\n0\r\n\r\n")
        answered = await caller.answer()
        assert (answered.status, anthropic_error(answered.body)) == (413, "request_too_large")

    play(scene, body_bytes=1000)


def test_an_engine_that_is_lost_too(play: Play) -> None:
    async def drop(asked: Asked) -> None:
        asked.drop()

    async def scene(world: World) -> None:
        engine = await world.engine(drop)
        await world.controller.publish(route(engine.target("m-1"), operations=(MESSAGES,), wait_s=0))
        answered = await world.post("/v1/messages", b'{"model":"m"}')
        assert (answered.status, anthropic_error(answered.body)) == (502, "api_error")

    play(scene)


def test_a_stream_that_breaks_ends_with_an_event_that_anthropics_client_reads(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b'event: message_start\ndata: {"type":"message_start"}\n\n')
        await asyncio.sleep(0.02)
        asked.drop()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1"), operations=(MESSAGES,)))
        answered = await world.post("/v1/messages", b'{"model":"m"}')
        assert not answered.is_whole
        *_, name, data = answered.body.strip().split(b"\n")
        assert name == b"event: error"
        assert anthropic_error(data.removeprefix(b"data: ")) == "api_error"

    play(scene)


# What is answered here.


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/v1/models/m"])
def test_head_is_get_without_the_body(play: Play, path: str) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.get(path)
        whole = await caller.answer()
        caller.get(path, method="HEAD")
        head = await caller.answer(to_head=True)
        del whole.headers["x-request-id"], head.headers["x-request-id"]
        assert (head.status, head.headers) == (whole.status, whole.headers)
        caller.get("/health")
        assert (await caller.answer()).status == 200

    play(scene)


def test_the_root_lists_every_endpoint(play: Play) -> None:
    async def scene(world: World) -> None:
        listed = json.loads((await world.get("/")).body)["endpoints"]
        assert listed == [f"{row.method} {row.path}" for row in ENDPOINTS]

    play(scene)


def test_metrics_are_the_controllers_answer(play: Play) -> None:
    async def scene(world: World) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nup 1\n")

        await world.controller.publish(route())
        answered = await world.get("/metrics")
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "controller_away")
        server = await asyncio.start_unix_server(answer, str(control))
        assert (await world.get("/metrics")).body == b"up 1\n"
        assert asked[0].startswith(b"GET /metrics HTTP/1.1\r\n")
        assert b"authorization" not in asked[0].lower()
        server.close()

    asked: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control"
        play(scene, control_socket=control)

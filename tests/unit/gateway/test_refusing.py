"""What is not let through, and how it is said."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from modelgrid.spec import AccessKey, Route, Unavailable
from unit.gateway.world import Answered, Play, World, route

CHAT = "/v1/chat/completions"
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-secret").hexdigest())


def error_of(answered: Answered) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answered.body)["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    return error


def test_an_unknown_model_is_not_found_and_names_those_there_are(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(*(route(model=f"m{n}") for n in range(7)))
        answered = await world.post(CHAT, b'{"model":"no"}')
        assert answered.status == 404
        assert error_of(answered) == {
            "message": "cannot find the model 'no': there are m0, m1, m2, m3, m4 and 2 more"
            " (GET /v1/models lists them)",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }

    play(scene)


def test_an_operation_that_the_engine_does_not_serve_names_models_that_do(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(
            Route(model="text", operations=("chat", "completions")), Route(model="minilm", operations=("embeddings",))
        )
        answered = await world.post("/v1/embeddings", b'{"model":"text","input":"x"}')
        assert (answered.status, error_of(answered)["code"]) == (400, "unsupported_operation")
        assert "minilm" in error_of(answered)["message"]

    play(scene)


def test_a_model_that_cant_be_served_says_why_and_when_to_come_again(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(unavailable=Unavailable(why="it crash-loops", retry_after_s=2.2)))
        answered = await world.post(CHAT, b'{"model":"m"}')
        assert (answered.status, answered.headers["retry-after"]) == (503, "3")
        assert error_of(answered)["type"] == "server_error"
        assert "it crash-loops" in error_of(answered)["message"]

    play(scene)


@pytest.mark.parametrize(
    ("body", "says"),
    [(b'{"model":"m",}', "byte 13"), (b"[]", "Expected `object`"), (b"{}", "names none"), (b"", "truncated")],
)
def test_a_body_that_cant_be_read_is_a_bad_request(play: Play, body: bytes, says: str) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        answered = await world.post(CHAT, body)
        assert (answered.status, error_of(answered)["type"]) == (400, "invalid_request_error")
        assert says in error_of(answered)["message"]

    play(scene)


def test_with_keys_each_request_needs_one_but_for_health(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        assert (await world.get("/health")).status == 200
        assert (await world.get("/v1/models", "Authorization: Bearer mg-secret\r\n")).status == 200
        assert (await world.get("/v1/models", "X-Api-Key: mg-secret\r\n")).status == 200
        for headers in ("", "Authorization: Bearer wrong\r\n"):
            for answered in (await world.get("/v1/models", headers), await world.post(CHAT, b'{"model":"m"}', headers)):
                assert (answered.status, error_of(answered)["code"]) == (401, "invalid_api_key")
                assert answered.headers["www-authenticate"] == "Bearer"
        assert engine.asked == []

    play(scene)


def test_where_a_key_is_needed_a_table_without_keys_lets_nobody_in(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        for headers in ("", "Authorization: Bearer mg-secret\r\n"):
            answered = await world.post(CHAT, b'{"model":"m"}', headers)
            assert (answered.status, error_of(answered)["code"]) == (401, "invalid_api_key")
        assert (await world.get("/health")).status == 200
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        assert (await world.get("/v1/models", "Authorization: Bearer mg-secret\r\n")).status == 200
        assert engine.asked == []

    play(scene, needs_key=True)


def test_before_the_first_table_nobody_is_let_in(play: Play) -> None:
    async def scene(world: World) -> None:
        answered = await world.get("/v1/models")
        assert (answered.status, error_of(answered)["type"]) == (503, "server_error")
        assert (await world.get("/health")).status == 200

    play(scene)


def test_an_unknown_path_is_not_found_and_a_wrong_method_names_the_right_one(play: Play) -> None:
    async def scene(world: World) -> None:
        assert (await world.get("/nothing")).status == 404
        answered = await world.get(CHAT)
        assert (answered.status, answered.headers["allow"]) == (405, "POST")

    play(scene)


def test_a_compressed_body_is_refused(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        assert (await world.post(CHAT, b"\x1f\x8b", "Content-Encoding: gzip\r\n")).status == 415

    play(scene)

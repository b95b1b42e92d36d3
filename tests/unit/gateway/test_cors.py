"""Pages of other sites may call where the configuration says so, and nowhere else; engines have no say in it."""

from __future__ import annotations

import hashlib
import json

import pytest

from modelgrid.config import CorsConfig
from modelgrid.spec import AccessKey, Route
from unit.gateway.world import Answered, Asked, Play, World, route

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
APP = "https://app.example.com"
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-secret").hexdigest())
ANN = "Authorization: Bearer mg-secret\r\n"
NAMED = CorsConfig((APP,))


async def ask_first(
    world: World, path: str = CHAT, origin: str = APP, method: str = "POST", headers: str = "authorization,content-type"
) -> Answered:
    """What a browser does before it sends what no form could."""
    caller = await world.call()
    asked = f"Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n"
    caller.get(path, f"{asked}Access-Control-Request-Headers: {headers}\r\n", method="OPTIONS")
    return await caller.answer()


def of_cors(answered: Answered) -> dict[str, str]:
    return {name: value for name, value in answered.headers.items() if name.startswith("access-control-")}


def test_a_page_that_is_named_may_ask_without_a_key_and_call_with_one(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        first = await ask_first(world)
        assert (first.status, first.body, "content-length" in first.headers) == (204, b"", False)
        assert first.headers["access-control-allow-origin"] == APP
        assert first.headers["access-control-allow-methods"] == "POST"
        assert first.headers["access-control-allow-headers"] == "authorization, content-type"
        assert first.headers["access-control-max-age"] == "600"
        answered = await world.post(CHAT, BODY, f"Origin: {APP}\r\n{ANN}")
        assert (answered.status, answered.body) == (200, BODY)
        assert of_cors(answered) == {
            "access-control-allow-origin": APP,
            "access-control-expose-headers": "*",
        }
        assert answered.headers["vary"] == "origin"

    play(scene, cors=NAMED)


def test_errors_carry_the_lines_too_so_that_a_page_can_show_them(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        page = f"Origin: {APP}\r\n"
        refused = [
            await world.post(CHAT, BODY, page),
            await world.post(CHAT, b'{"model":"other"}', page + ANN),
            await world.post("/v1/nothing", BODY, page + ANN),
            await world.get(CHAT, page + ANN),
            await world.get("/health", f"{page}X: {'x' * 70_000}\r\n"),
            await world.post(CHAT, BODY, f"{page}{ANN}Expect: more\r\n"),
        ]
        assert [answered.status for answered in refused] == [401, 404, 404, 405, 431, 417]
        assert [answered.headers.get("access-control-allow-origin") for answered in refused] == [APP] * 6

    play(scene, cors=NAMED)


def test_streams_carry_them(play: Play) -> None:
    async def stream(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: {}\n\n")
        await asked.chunk(b"data: [DONE]\n\n")
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY, f"Origin: {APP}\r\n")
        assert answered.body == b"data: {}\n\ndata: [DONE]\n\n"
        assert answered.headers["access-control-allow-origin"] == APP

    play(scene, cors=NAMED)


def test_other_pages_are_told_nothing(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        for origin in ("https://evil.example", "null", f"{APP}.evil.example", f"{APP}:444", "http://app.example.com"):
            assert of_cors(await ask_first(world, origin=origin)) == {}
            answered = await world.post(CHAT, BODY, f"Origin: {origin}\r\n{ANN}")
            assert (of_cors(answered), answered.headers["vary"]) == ({}, "origin")

    play(scene, cors=NAMED)


def test_without_a_word_on_it_browsers_let_nobody(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        first = await ask_first(world)
        assert (first.status, of_cors(first)) == (405, {})
        assert of_cors(await world.post(CHAT, BODY, f"Origin: {APP}\r\n{ANN}")) == {}

    play(scene)


@pytest.mark.parametrize("cors", [None, NAMED])
def test_what_an_engine_tells_browsers_goes_no_further(play: Play, cors: CorsConfig | None) -> None:
    async def loose(asked: Asked) -> None:
        headers = (
            "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nSet-Cookie: a=b\r\n"
            "Strict-Transport-Security: max-age=9\r\nX-Engine: kept\r\n"
        )
        await asked.sized(b"{}", headers=headers)

    async def scene(world: World) -> None:
        engine = await world.engine(loose)
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        answered = await world.post(CHAT, BODY, f"Origin: https://evil.example\r\n{ANN}")
        assert answered.headers["x-engine"] == "kept"
        assert of_cors(answered) == {}
        assert not {"set-cookie", "strict-transport-security"} & set(answered.headers)

    play(scene, cors=cors)


def test_every_page_may_come_where_that_is_said_and_is_not_named_to_others(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        answered = await world.post(CHAT, BODY, f"Origin: null\r\n{ANN}")
        assert answered.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answered.headers
        assert (await ask_first(world, origin="https://any.example")).headers["access-control-allow-origin"] == "*"

    play(scene, cors=CorsConfig(("*",)))


def test_a_page_that_comes_with_credentials_is_told_so_by_its_own_name(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        answered = await world.post(CHAT, BODY, f"Origin: {APP}\r\n{ANN}")
        assert answered.headers["access-control-allow-credentials"] == "true"
        assert answered.headers["access-control-allow-origin"] == APP
        assert "x-request-id" in answered.headers["access-control-expose-headers"]

    play(scene, cors=CorsConfig((APP,), credentials=True))


def test_a_path_that_is_not_there_is_told_of_as_to_anybody(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish()
        assert (await ask_first(world, "/v1/nothing")).status == 404
        assert (await ask_first(world, "/control/v1/keys")).headers.get("access-control-allow-methods") != "POST"
        own = await ask_first(world, "/v1/models", method="GET")
        assert own.headers["access-control-allow-methods"] == "GET, HEAD"

    play(scene, cors=NAMED)


@pytest.mark.parametrize(
    ("configured", "asked", "allowed"),
    [
        ((), "x-evil, content-type", "content-type"),
        ((), "x-stainless-os, X-Modelgrid-Priority", "x-modelgrid-priority, x-stainless-os"),
        (("x-mine",), "x-mine,x-other", "x-mine"),
        (("*",), "x-mine,x-other", "x-mine, x-other"),
        (("*",), "x-a b, x;c, \xe9", ""),
    ],
)
def test_headers_are_allowed_by_name(play: Play, configured: tuple[str, ...], asked: str, allowed: str) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish()
        first = await ask_first(world, headers=asked)
        assert first.headers["access-control-allow-headers"] == allowed

    play(scene, cors=CorsConfig((APP,), headers=configured))


def test_a_page_that_is_named_is_near_where_no_key_is_asked_for_and_no_other_is(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        assert (await world.post(CHAT, BODY, f"Origin: {APP}\r\n")).status == 200
        refused = await world.post(CHAT, BODY, "Origin: https://evil.example\r\n")
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (403, "not_nearby")

    play(scene, cors=NAMED)
    for cors in (CorsConfig(("*",)), None):

        async def other(world: World) -> None:
            await world.controller.publish(Route(model="m"))
            assert (await world.post(CHAT, BODY, f"Origin: {APP}\r\n")).status == 403

        play(other, cors=cors)


def test_what_a_head_said_to_one_page_is_not_said_to_another(play: Play) -> None:
    """Heads are remembered."""

    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        caller = await world.call()
        for _ in range(3):
            for origin, told in ((APP, APP), ("https://evil.example", None)):
                caller.post(CHAT, BODY, f"Origin: {origin}\r\n{ANN}")
                answered = await caller.answer()
                assert (answered.status, answered.headers.get("access-control-allow-origin")) == (200, told)
            caller.post(CHAT, BODY, ANN)
            assert of_cors(await caller.answer()) == {}

    play(scene, cors=NAMED)


def test_our_own_answers_are_what_they_say_they_are(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish()
        for answered in (await world.get("/health"), await world.get("/nothing"), await world.post(CHAT, BODY)):
            assert answered.headers["x-content-type-options"] == "nosniff"
            assert answered.headers["referrer-policy"] == "no-referrer"
            assert not {"server", "strict-transport-security"} & set(answered.headers)

    play(scene)

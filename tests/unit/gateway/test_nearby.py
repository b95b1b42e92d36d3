"""While no key is asked for, only this machine's own programs are let in."""

from __future__ import annotations

import hashlib
import json

import pytest

from modelgrid.gateway.nearby import why_not_nearby
from modelgrid.spec import AccessKey
from unit.gateway.world import Answered, Play, World, route

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-secret").hexdigest())


async def chat(world: World, lines: str, version: str = "1.1") -> Answered:
    caller = await world.call()
    caller.send(f"POST {CHAT} HTTP/{version}\r\n{lines}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
    return await caller.answer()


@pytest.mark.parametrize("port", ["", ":9000"])
@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.8.7.6", "[::1]"])
def test_loopback_hosts_and_their_pages_are_near(host: str, port: str) -> None:
    headers = {b"host": (host + port).encode()}
    assert why_not_nearby(headers, is_http10=False) is None
    for scheme in ("http", "https"):
        origin = f"{scheme}://{host}{port}".encode()
        assert why_not_nearby({**headers, b"origin": origin}, is_http10=False) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:9000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1:9000.evil.example",
        "evil.example:127.0.0.1",
        "evil-localhost",
        "user@localhost",
        "0.0.0.0",
        "192.168.0.7",
        "[::2]",
        "localhost, evil.example",
        "localhost\n",
    ],
)
def test_other_hosts_and_their_pages_are_not(host: str) -> None:
    assert why_not_nearby({b"host": host.encode()}, is_http10=False) == f"its Host is {host!r}"
    headers = {b"host": b"localhost", b"origin": f"http://{host}".encode()}
    assert why_not_nearby(headers, is_http10=False) == f"its Origin is {'http://' + host!r}"


@pytest.mark.parametrize("origin", ["null", "", "localhost", "file://", "chrome-extension://abc", "http://localhost/x"])
def test_an_origin_that_is_no_page_of_this_machine_is_not_near(origin: str) -> None:
    headers = {b"host": b"localhost", b"origin": origin.encode()}
    assert why_not_nearby(headers, is_http10=True) == f"its Origin is {origin!r}"


def test_only_where_http_does_without_a_host_there_may_be_none() -> None:
    assert why_not_nearby({}, is_http10=True) is None
    assert why_not_nearby({}, is_http10=False) == "it has no Host"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("Host: evil.example:9000\r\n", "its Host is 'evil.example:9000'"),
        ("Host: 127.0.0.1\r\nOrigin: https://evil.example\r\n", "its Origin is 'https://evil.example'"),
        ("Host: 127.0.0.1\r\nOrigin: null\r\n", "its Origin is 'null'"),
        ("Host: evil.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", "its Host is 'evil.example'"),
    ],
)
def test_a_page_of_another_site_reaches_no_engine_where_no_key_is_asked_for(play: Play, lines: str, says: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        answered = await chat(world, lines)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["type"], error["code"]) == (403, "invalid_request_error", "not_nearby")
        assert says in error["message"]
        assert "modelgrid key create NAME" in error["message"]
        assert engine.asked == []

    play(scene)


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ("Host: localhost:9000\r\n", "1.1"),
        ("Host: [::1]:9000\r\nOrigin: http://localhost:3000\r\n", "1.1"),
        ("Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", "1.1"),
        ("", "1.0"),
    ],
)
def test_programs_and_pages_of_this_machine_are_served_without_a_key(play: Play, lines: str, version: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        assert (await chat(world, lines, version)).status == 200

    play(scene)


def test_who_has_a_key_may_come_from_anywhere(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        far = "Host: models.example\r\nOrigin: https://app.example\r\n"
        assert (await chat(world, far + "Authorization: Bearer mg-secret\r\n")).status == 200
        assert (await chat(world, far)).status == 401

    play(scene)


def test_health_is_told_to_anybody(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(b"GET /health HTTP/1.1\r\nHost: models.example\r\n\r\n")
        assert (await caller.answer()).status == 200

    play(scene)

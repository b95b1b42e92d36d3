"""The control API on the public port: who reaches it, and what of a request goes on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelgrid.spec import AccessKey, Scope
from unit.gateway.world import Play, World, route

ADMIN = AccessKey(id="a1", name="ops", sha256=hashlib.sha256(b"ops").hexdigest(), scopes=(Scope.ADMIN,))
OPS = "Authorization: Bearer ops\r\n"
JSON = "Content-Type: application/json\r\n"


@dataclass
class Control:
    """The controller's end of its socket."""

    asked: list[tuple[bytes, bytes]] = field(default_factory=list)  # head and body

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.asked.append((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")

    @property
    def lines(self) -> list[bytes]:
        return [head.partition(b" HTTP/")[0] for head, _ in self.asked]


Scene = Callable[[World, Control], Awaitable[None]]
PlayControl = Callable[[Scene], None]


@pytest.fixture
def play_control(play: Play) -> PlayControl:
    """Runs a scene with a controller that answers."""

    def run(scene: Scene) -> None:
        async def whole(world: World) -> None:
            control = Control()
            server = await asyncio.start_unix_server(control.answer, str(path))
            await scene(world, control)
            server.close()

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "control"
            play(whole, control_socket=path)

    return run


async def send(world: World, start: str, headers: str = "", body: bytes = b"") -> tuple[int, str]:
    """Send a request to this machine's own name; answers its status, and the code of its error."""
    caller = await world.call()
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    host = "" if "Host:" in headers else "Host: 127.0.0.1:9000\r\n"
    caller.send(f"{start} HTTP/1.1\r\n{host}{headers}{length}\r\n".encode() + body)
    answered = await caller.answer(to_head=start.startswith("HEAD"))
    caller.leave()
    is_error = answered.status >= 400 and answered.body
    return answered.status, json.loads(answered.body)["error"]["code"] if is_error else ""


def test_an_admins_request_goes_on_with_its_body_and_query_and_nothing_else_of_it(play_control: PlayControl) -> None:
    async def scene(world: World, control: Control) -> None:
        await world.controller.publish(route(), keys=(ADMIN,))
        headers = f"{OPS}{JSON}X-Modelgrid-By: owner\r\nCookie: a=b\r\nX-Forwarded-For: 127.0.0.1\r\nAccept: */x\r\n"
        assert await send(world, "POST /control/v1/keys?a=b%20c", headers, b'{"name":"x"}') == (201, "")
        head, body = control.asked[0]
        assert head.split(b"\r\n") == [
            b"POST /control/v1/keys?a=b%20c HTTP/1.1",
            b"host: controller",
            b"connection: close",
            b"x-modelgrid-by: a1",
            b"accept: */x",
            b"content-type: application/json",
            b"content-length: 12",
            b"",
            b"",
        ]
        assert body == b'{"name":"x"}'
        assert await send(world, "DELETE /control/v1/keys/a%2Fb", OPS) == (201, "")
        assert await send(world, "HEAD /control/v1/status", OPS) == (201, "")
        assert control.lines[1:] == [b"DELETE /control/v1/keys/a%2Fb", b"GET /control/v1/status"]

    play_control(scene)


@pytest.mark.parametrize(
    "path",
    [
        "/control",
        "/control/",
        "/control/v1",
        "/control/v1/",
        "/control/v2/status",
        "/Control/v1/status",
        "/CONTROL/V1/STATUS",
        "//control/v1/status",
        "/control//v1/status",
        "/control/v1//status",
        "/control/v1/./status",
        "/control/v1/../v1/status",
        "/control/v1/%2e%2e/metrics",
        "/control/v1/%2E%2E/%2e%2E/docs",
        "/control/v1/.%2e/docs",
        "/v1/../control/v1/status",
        "/v1/%2e%2e/control/v1/status",
        "/v1/models/../../control/v1/status",
        "/%63ontrol/v1/status",
        "/control%2fv1%2fstatus",
        "/control/v1\\status",
        "/control/v1/status;/../x\\",
        "/control/v1/a%zz",
        "/docs",
        "/openapi.json",
        "/metrics/../control/v1/status",
    ],
)
def test_tricks_with_paths_reach_nobody_not_even_with_a_key(play_control: PlayControl, path: str) -> None:
    async def scene(world: World, control: Control) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(ADMIN,))
        assert (await send(world, f"GET {path}", OPS))[0] in (403, 404)
        assert (await send(world, f"GET {path}"))[0] in (401, 404)
        assert (control.asked, engine.asked) == ([], [])

    play_control(scene)


@pytest.mark.parametrize(
    "start",
    ["GET http://evil.example/control/v1/status", "GET http://127.0.0.1/control/v1/status", "GET /control/v1/status"],
)
def test_without_its_key_no_spelling_of_the_host_reaches_it(play_control: PlayControl, start: str) -> None:
    async def scene(world: World, control: Control) -> None:
        await world.controller.publish(route(), keys=(ADMIN,))
        for headers in (
            "",
            "Host: controller\r\n",
            "Host: modelgrid\r\n",
            "Host: localhost\r\nX-Modelgrid-By: owner\r\n",
        ):
            assert (await send(world, start, headers))[0] in (400, 401)
        assert (await send(world, start, "Authorization: Bearer wrong\r\n"))[0] == 401
        assert (await send(world, start, "Authorization: Basic b3BzOm9wcw==\r\n"))[0] == 401
        assert control.asked == []

    play_control(scene)


def test_without_keys_programs_of_this_machine_may_administer(play_control: PlayControl) -> None:
    async def scene(world: World, control: Control) -> None:
        await world.controller.publish(route())
        assert await send(world, "GET /control/v1/status") == (201, "")
        assert await send(world, "POST /control/v1/keys", JSON, b"{}") == (201, "")
        assert await send(world, "POST /control/v1/models/m/load", "X-Modelgrid: 1\r\n") == (201, "")
        same = "Host: localhost:9000\r\nOrigin: http://localhost:9000\r\nSec-Fetch-Site: same-origin\r\n"
        assert await send(world, "DELETE /control/v1/keys/a", same + JSON) == (201, "")
        assert all(b"\r\nx-modelgrid-by: anyone\r\n" in head for head, _ in control.asked)

    play_control(scene)


@pytest.mark.parametrize(
    "headers",
    [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:3000\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "X-Forwarded-For: 10.0.0.9\r\n",
        "Forwarded: for=10.0.0.9\r\n",
        "Via: 1.1 proxy\r\n",
    ],
)
def test_without_keys_no_page_and_no_proxy_may(play_control: PlayControl, headers: str) -> None:
    async def scene(world: World, control: Control) -> None:
        await world.controller.publish(route())
        assert await send(world, "GET /control/v1/status", headers) == (403, "not_nearby")
        assert await send(world, "POST /control/v1/keys", headers + JSON, b"{}") == (403, "not_nearby")
        assert control.asked == []

    play_control(scene)


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: text/plain; application/json\r\n",
    ],
)
def test_without_keys_what_a_page_could_send_unasked_changes_nothing(play_control: PlayControl, headers: str) -> None:
    async def scene(world: World, control: Control) -> None:
        await world.controller.publish(route())
        for start in ("POST /control/v1/models/m/load", "DELETE /control/v1/keys/a", "PUT /control/v1/groups/a"):
            assert await send(world, start, headers) == (403, "not_nearby")
        assert control.asked == []

    play_control(scene)


def test_where_a_key_is_needed_none_is_not_enough_even_nearby(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        assert (await send(world, "GET /control/v1/status"))[0] == 401

    play(scene, needs_key=True)


def test_a_body_has_a_limit(play_control: PlayControl) -> None:
    async def scene(world: World, control: Control) -> None:
        await world.controller.publish(route(), keys=(ADMIN,))
        large = b'"' + b"x" * (1 << 20) + b'"'
        assert await send(world, "POST /control/v1/keys", OPS + JSON, large) == (413, "body_too_large")
        assert control.asked == []

    play_control(scene)


def test_who_asks_while_the_controller_is_away_is_told(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(), keys=(ADMIN,))
        assert await send(world, "POST /control/v1/keys", OPS + JSON, b"{}") == (503, "controller_away")

    play(scene)

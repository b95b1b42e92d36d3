"""A line for each request: who asked for what and what became of it; never what was said, a key or a query."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from modelgrid.gateway.proxies import Proxies
from modelgrid.gateway.request import Head, Record, Request
from modelgrid.gateway.request_log import RequestLog
from modelgrid.spec import AccessKey
from unit.gateway.world import PATIENCE_S, Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"the-prompt"}]}'
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-secret-word").hexdigest())
ANN = "Authorization: Bearer mg-secret-word\r\n"


async def lines(file: Path, count: int) -> list[dict[str, Any]]:
    """What was logged, when there is so much of it."""
    written = await until(lambda: text if file.exists() and (text := file.read_text()).count("\n") >= count else "")
    found = [json.loads(line) for line in written.splitlines()]
    assert len(found) == count
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.log"


def test_a_line_says_who_asked_for_what_and_what_became_of_it(play: Play, file: Path) -> None:
    async def answer(asked: Asked) -> None:
        await asked.sized(b'{"answer":"the-answer","usage":{"prompt_tokens":5,"completion_tokens":3}}')

    async def scene(world: World) -> None:
        engine = await world.engine(answer)
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
        await world.post(f"{CHAT}?api_key=secret-query", BODY, f"{ANN}X-Request-Id: mine\r\n{trace}")
        (line,) = await lines(file, 1)
        assert 0 < line.pop("duration_s") < PATIENCE_S
        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "level": "info",
            "event": "request",
            "id": "mine",
            "address": "127.0.0.1",
            "key": "ann",
            "method": "POST",
            "path": CHAT,
            "operation": "chat",
            "model": "m",
            "status": 200,
            "tokens_in": 5,
            "tokens_out": 3,
            "replica": "m-1",
            "trace": "0af7651916cd43dd8448eb211c80319c",
        }
        assert "traceparent" in engine.asked[0].headers
        written = file.read_text()
        assert not [word for word in ("secret", "the-prompt", "the-answer") if word in written]

    play(scene, log_requests="all", log_format="json", request_log=file)


def test_streams_refusals_retries_and_who_left_have_their_line(play: Play, file: Path) -> None:
    async def stream(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b'data: {"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n')
        await asked.chunk(b"data: [DONE]\n\n")
        await asked.chunk(b"")

    async def cut(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: {}\n\n")
        asked.drop()

    async def lose(asked: Asked) -> None:
        asked.drop()

    async def wait(asked: Asked) -> None:
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        await world.post(CHAT, BODY, ANN)
        (line,) = await lines(file, 1)
        assert line["ttft_s"] <= line["duration_s"]
        assert (line["tokens_in"], line["tokens_out"]) == (5, 2)
        engine.once = [cut]
        await world.post(CHAT, BODY, ANN)
        line = (await lines(file, 2))[-1]
        assert (line["status"], line["code"], line["level"]) == (200, "engine_lost", "error")
        engine.once = [lose]
        await world.post(CHAT, BODY, ANN)
        line = (await lines(file, 3))[-1]
        assert (line["status"], line["retries"], line["replica"]) == (200, 1, "m-1")
        engine.once = [wait]
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        await until(lambda: len(engine.asked) == 5, "the request")
        caller.leave()
        line = (await lines(file, 4))[-1]
        assert (line["status"], line["model"], line["key"]) == (499, "m", "ann")
        await world.post(CHAT, b'{"model":"other"}', ANN)
        line = (await lines(file, 5))[-1]
        assert (line["status"], line["code"], line["operation"]) == (404, "model_not_found", "chat")
        await world.post(CHAT, BODY)
        line = (await lines(file, 6))[-1]
        assert (line["status"], line["code"], "key" in line) == (401, "invalid_api_key", False)
        await world.get("/health")
        line = (await lines(file, 7))[-1]
        assert (line["status"], line["path"]) == (200, "/health")

    play(scene, log_requests="all", log_format="json", request_log=file)


def test_errors_alone_are_logged_where_only_they_are_asked_for(play: Play, file: Path) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        await world.post(CHAT, BODY, ANN)
        await world.post(CHAT, BODY)
        (line,) = await lines(file, 1)
        assert line["status"] == 401

    play(scene, log_requests="errors", log_format="json", request_log=file)


def test_nothing_is_written_where_nothing_is_asked_for(play: Play, file: Path) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish()
        await world.post(CHAT, BODY)

    play(scene, request_log=file)
    assert not file.exists()


def test_a_caller_cannot_write_lines_of_its_own(play: Play, file: Path) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(keys=(KEY,))
        odd = 'a" status=200 \x85forged \u2028'.encode().decode("latin-1")
        caller = await world.call()
        head = f"GET /v1/x%0d%0aforged=1/{'y' * 500} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {odd}\r\n"
        caller.send(f"{head}X-Forwarded-For: 6.6.6.6\r\n\r\n".encode("latin-1"))
        assert (await caller.answer()).status == 404
        written = await until(lambda: file.read_text() if file.exists() else "")
        assert len(written.splitlines()) == 1
        assert " status=404 " in written
        assert '" status=200' not in written.replace('\\"', "")
        assert "address=127.0.0.1" in written
        assert len(written) < 800

    play(scene, log_requests="all", request_log=file)


def test_an_address_is_what_a_trusted_proxy_says(play: Play, file: Path) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        forwarded = "X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Real-IP: 6.6.6.6\r\n"
        await world.post(CHAT, BODY, ANN + forwarded)
        (line,) = await lines(file, 1)
        assert line["address"] == "203.0.113.7"
        assert not {"x-forwarded-for", "x-real-ip"} & set(engine.asked[0].headers)  # engines believe it

    play(scene, log_requests="all", log_format="json", request_log=file, trusted_proxies=("127.0.0.1/32",))


def test_what_a_slow_disk_does_not_take_is_dropped_and_counted() -> None:
    goes_on = threading.Event()
    written: list[str] = []

    def write(text: str) -> None:
        assert goes_on.wait(PATIENCE_S)
        written.append(text)

    async def scene() -> None:
        log = RequestLog(asyncio.get_running_loop(), write, Proxies([]), as_json=True, lines=3)
        request = Request(Head("GET", "/health"), b"id")
        request.record = Record(200)
        for _ in range(10):
            log.ended(request, "")
        goes_on.set()
        log.close()

    asyncio.run(scene())
    found = [json.loads(line) for line in "".join(written).splitlines()]
    assert [line["event"] for line in found] == ["request"] * 3 + ["request.dropped"]
    assert found[-1]["lines"] == 7


def test_a_key_in_the_wrong_place_is_not_written(play: Play, file: Path) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(keys=(KEY,))
        await world.get("/v1/mg-secret-word/models?key=mg-secret-word", "X-Request-Id: mg-secret-word\r\n")
        written = await until(lambda: file.read_text() if file.exists() else "")
        assert "secret" not in written

    play(scene, log_requests="all", request_log=file)


def test_what_the_controller_answers_has_its_status(play: Play, file: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    async def scene(world: World) -> None:
        await world.controller.publish()
        server = await asyncio.start_unix_server(answer, world.options.control_socket)
        assert (await world.get("/metrics")).status == 503
        (line,) = await lines(file, 1)
        assert (line["status"], line["path"], line["level"]) == (503, "/metrics", "error")
        server.close()

    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
        control = Path(folder) / "api"
        play(scene, log_requests="all", log_format="json", request_log=file, control_socket=control)

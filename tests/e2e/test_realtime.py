"""A realtime session by the gateway: frames go both ways as they are, and either side's end is the other's."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.daemon import Daemon, faulty, serving, until
from e2e.raw import Answered, Raw
from e2e.seen import Engines, told

KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x11\x22\x33\x44"


class Session:
    """A WebSocket's client, with as much of RFC 6455 as is needed here."""

    def __init__(self, daemon: Daemon, model: str, headers: dict[str, str] | None = None, path: str = "") -> None:
        self.raw = Raw(daemon.port)
        offer = {"connection": "Upgrade", "upgrade": "websocket"}
        version = {"sec-websocket-version": "13", "sec-websocket-key": KEY}
        self.raw.get(path or f"/v1/realtime?model={model}", offer | version | (headers or {}))
        self.opening: Answered = self.raw.answer()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.socket.close()

    def send(self, opcode: int, data: bytes, *, is_last: bool = True) -> None:
        length = len(data)
        size = bytes([128 | length]) if length < 126 else b"\xff" + struct.pack(">Q", length)
        key = int.from_bytes((MASK * (length // 4 + 1))[:length], "big")
        masked = (int.from_bytes(data, "big") ^ key).to_bytes(length, "big")
        self.raw.send(bytes([(128 if is_last else 0) | opcode]) + size + MASK + masked)

    def frame(self) -> tuple[int, bytes]:
        first, length = self.raw.take(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.raw.take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.raw.take(8))
        return first & 15, self.raw.take(length)

    def event(self) -> dict[str, Any]:
        """The next message, which is JSON."""
        opcode, data = self.frame()
        assert opcode == TEXT, (opcode, data)
        read: dict[str, Any] = json.loads(data)
        return read

    def say(self, **event: Any) -> None:
        self.send(TEXT, json.dumps(event).encode())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    models = {
        "a": faulty(scaling={"min": 1}, aliases=["gpt-realtime"]),
        "pair": faulty(scaling={"min": 2, "max": 2}),
        "cold": faulty("--start-delay", "0.5"),
        "embedder": faulty(type="embedding", scaling={"min": 1}),
    }
    with serving(tmp_path_factory.mktemp("realtime"), models) as daemon:
        yield daemon


def test_a_session_is_opened_and_speaks(daemon: Daemon) -> None:
    headers = told(chunks=5)
    with Session(daemon, "gpt-realtime", {"sec-websocket-protocol": "realtime, other", **headers}) as session:
        opening = session.opening
        assert (opening.status, opening.headers["sec-websocket-accept"]) == (101, ACCEPT)
        assert opening.headers["sec-websocket-protocol"] == "realtime"
        created = session.event()
        assert (created["type"], created["session"]["pid"]) == ("session.created", daemon.replicas("a")[0].pid)
        session.say(type="session.update", session={"voice": "alloy"})
        assert session.event()["session"]["voice"] == "alloy"
        session.say(type="response.create")
        kinds = [session.event()["type"] for _ in range(8)]
    assert kinds == [
        "response.created",
        *["response.output_text.delta"] * 5,
        "response.output_text.done",
        "response.done",
    ]
    (received,) = Engines(daemon, "a").received(headers)
    assert received["path"] == "/v1/realtime?model=a"  # the name that the engine knows it by


def test_frames_of_every_size_and_kind_go_both_ways_as_they_are(daemon: Daemon) -> None:
    with Session(daemon, "a") as session:
        assert session.event()["type"] == "session.created"
        for size in (0, 1, 125, 126, 65_535, 65_536, 8 << 20):
            data = os.urandom(size)
            sending = threading.Thread(target=session.send, args=(BINARY, data))
            sending.start()
            assert session.event()["sha256"] == hashlib.sha256(data).hexdigest()
            assert session.frame() == (BINARY, data)
            sending.join()
        session.send(PING, b"are you there?")
        assert session.frame() == (PONG, b"are you there?")
        session.send(TEXT, b"a mess", is_last=False)
        session.send(0, "age in two: é🦉".encode())
        assert session.event()["text"] == "a message in two: é🦉"


def test_what_comes_with_the_opening_is_not_lost(daemon: Daemon) -> None:
    headers = told(delay=0.2)
    raw = Raw(daemon.port)
    offer = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": KEY}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (offer | headers).items())
    first = b"\x89\x80" + MASK  # a ping
    raw.send(f"GET /v1/realtime?model=a HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}\r\n".encode() + first)
    assert raw.answer().status == 101
    raw.until(b"session.created")
    raw.until(b"\x8a\x00")  # its pong
    raw.leave()


def test_the_callers_closing_reaches_the_engine_and_its_answer_the_caller(daemon: Daemon) -> None:
    headers = told()
    with Session(daemon, "a", headers) as session:
        session.event()
        session.send(CLOSE, struct.pack(">H", 4321) + b"bye")
        assert session.frame() == (CLOSE, struct.pack(">H", 4321))
        assert session.raw.rest() == b""
    (course,) = Engines(daemon, "a").courses(headers)
    assert course["closed_with"] == 4321


def test_the_engines_closing_reaches_the_caller(daemon: Daemon) -> None:
    with Session(daemon, "a", told(cut_events=1, cut_by="end")) as session:
        session.event()
        session.say(type="hello")
        session.event()
        assert session.frame() == (CLOSE, struct.pack(">H", 1001))
        assert session.raw.rest() == b""


def test_an_engine_that_is_killed_ends_the_session(daemon: Daemon) -> None:
    with Session(daemon, "pair") as session:
        pid = session.event()["session"]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert session.raw.rest() == b""
    with Session(daemon, "pair") as session:  # and the other one serves
        assert session.event()["session"]["pid"] != pid


def test_an_engine_that_is_killed_before_it_agrees_is_stood_in_for(daemon: Daemon) -> None:
    _until_both_are_ready(daemon)
    headers = told(delay=0.7)
    engines = Engines(daemon, "pair")
    opened: list[Session] = []
    opening = threading.Thread(target=lambda: opened.append(Session(daemon, "pair", headers)))
    opening.start()
    (victim,) = until("one of them is asked", lambda: _asked(engines, headers))
    os.kill(victim, signal.SIGKILL)
    opening.join(30)
    with opened[0] as session:
        assert session.opening.status == 101
        assert session.event()["session"]["pid"] != victim


def test_a_session_waits_for_a_cold_model(daemon: Daemon) -> None:
    with Session(daemon, "cold") as session:
        assert session.opening.status == 101
        assert session.event()["session"]["pid"] == daemon.replicas("cold")[0].pid


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/realtime?model=nobody", {}, 404, "model_not_found"),
        ("/v1/realtime?model=embedder", {}, 400, "unsupported_operation"),
        ("/v1/realtime?model=a", {"upgrade": "h2c"}, 426, "upgrade_required"),
        ("/v1/realtime", {}, 400, "model_required"),
    ],
)
def test_what_cannot_be_opened_says_why(
    daemon: Daemon, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    with Session(daemon, "", headers, path) as session:
        assert (session.opening.status, session.opening.json()["error"]["code"]) == (status, code)


def test_an_engine_that_does_not_agree_is_quoted(daemon: Daemon) -> None:
    with Session(daemon, "a", {"sec-websocket-version": "8"}) as session:
        assert session.opening.status == 426
        assert "only version 13" in session.opening.json()["error"]["message"]


def test_sessions_are_in_flight_at_their_replicas_and_spread_over_them(daemon: Daemon) -> None:
    _until_both_are_ready(daemon)
    sessions = [Session(daemon, "pair") for _ in range(4)]
    pids = [session.event()["session"]["pid"] for session in sessions]
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]
    until("all are counted", lambda: daemon.model("pair").in_flight == 4)
    for session in sessions:
        session.raw.leave()
    until("none is", lambda: daemon.model("pair").in_flight == 0)


def _until_both_are_ready(daemon: Daemon) -> None:
    """Also where one was killed just now, which isn't known yet."""

    def look() -> bool:
        ready = {replica.pid for replica in daemon.replicas("pair") if replica.state == "ready"}
        return len(ready) == 2 and ready <= {process.pid for process in daemon.engines()}

    until("both are ready", look)


def _asked(engines: Engines, headers: dict[str, str]) -> list[int]:
    """The processes that were asked so."""
    wanted = headers["x-request-id"]
    pages = engines.pages("left", 10)
    return [page["pid"] for page in pages if any(one["request_id"] == wanted for one in page["requests"])]

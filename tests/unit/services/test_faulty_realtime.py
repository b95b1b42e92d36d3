"""The test engine's WebSocket, spoken to by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from unit.services import conftest

if TYPE_CHECKING:
    from unit.services.conftest import Program

Faulty = Callable[..., "Program"]
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Client:
    """A WebSocket's client, which can also break the rules."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")

    def open(self, *headers: str, path: str = "/v1/realtime?model=m") -> list[str]:
        key = base64.b64encode(b"0123456789abcdef").decode()
        lines = [f"GET {path} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Key: {key}", *headers]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return [line.decode().strip() for line in iter(self.file.readline, b"\r\n")]

    def send(self, opcode: int, data: bytes = b"", *, is_last: bool = True, masked: bool = True) -> None:
        first = opcode | (128 if is_last else 0)
        bit = 128 if masked else 0
        if len(data) < 126:
            head = bytes([first, bit | len(data)])
        elif len(data) < 65536:
            head = bytes([first, bit | 126]) + struct.pack(">H", len(data))
        else:
            head = bytes([first, bit | 127]) + struct.pack(">Q", len(data))
        mask = os.urandom(4) if masked else b""
        hidden = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data)) if masked else data
        self.connection.sendall(head + mask + hidden)

    def frame(self) -> tuple[int, bytes]:
        first, length = self.file.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.file.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.file.read(8))
        return first & 15, self.file.read(length)

    def event(self) -> dict[str, Any]:
        opcode, data = self.frame()
        assert opcode == TEXT
        found: dict[str, Any] = json.loads(data)
        return found


@contextmanager
def client_of(program: Program) -> Iterator[Client]:
    with socket.create_connection(("127.0.0.1", program.port), 10) as connection:
        yield Client(connection)


def test_a_session_says_what_it_hears(faulty: Faulty) -> None:
    with client_of(faulty("--model", "m")) as client:
        head = client.open("Sec-WebSocket-Protocol: other, realtime", "Sec-WebSocket-Protocol: third")
        assert head[0] == "HTTP/1.1 101 Switching Protocols"
        magic = base64.b64encode(b"0123456789abcdef") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic).digest()).decode()
        assert {f"sec-websocket-accept: {accept}", "sec-websocket-protocol: realtime"} <= set(head)
        created = client.event()
        assert (created["type"], created["session"]["model"]) == ("session.created", "m")

        client.send(TEXT, b"hello")
        assert client.event()["text"] == "hello"
        for size in (0, 126, 70_000):
            data = os.urandom(size)
            client.send(BINARY, data)
            assert client.event()["sha256"] == hashlib.sha256(data).hexdigest()
            assert client.frame() == (BINARY, data)
        client.send(TEXT, b"one ", is_last=False)
        client.send(PING, b"still there?")
        client.send(0, b"two", is_last=True)
        assert client.frame() == (PONG, b"still there?")
        assert client.event()["text"] == "one two"


def test_a_response_is_made_in_events(faulty: Faulty) -> None:
    with client_of(faulty()) as client:
        client.open()
        client.event()
        client.send(TEXT, json.dumps({"type": "session.update", "session": {"instructions": "x"}}).encode())
        assert client.event()["session"]["instructions"] == "x"
        client.send(TEXT, b'{"type": "response.create"}')
        kinds = [client.event()["type"] for _ in range(7)]
        assert kinds[0] == "response.created"
        assert kinds[1:5] == ["response.output_text.delta"] * 4
        assert kinds[5:] == ["response.output_text.done", "response.done"]


def test_both_sides_close(faulty: Faulty) -> None:
    program = faulty()
    with client_of(program) as client:
        client.open()
        client.event()
        client.send(CLOSE, struct.pack(">H", 1000) + b"bye")
        assert client.frame() == (CLOSE, struct.pack(">H", 1000))
        assert client.file.read() == b""
    course = program.get("/faulty/left").json()["requests"][-1]
    assert (course["closed_with"], course["left"]) == (1000, None)


def test_a_client_that_leaves_without_a_word_is_noted(faulty: Faulty) -> None:
    program = faulty()
    with client_of(program) as client:
        client.open()
        client.event()
        client.file.close()
    conftest.until(lambda: program.get("/faulty/left").json()["left"] == 1)


@pytest.mark.parametrize(
    ("opcode", "data", "options", "code"),
    [
        (TEXT, b"bare", {"masked": False}, 1002),
        (0, b"a fragment of nothing", {}, 1002),
        (3, b"", {}, 1002),
        (PING, b"x" * 126, {}, 1002),
        (PING, b"x", {"is_last": False}, 1002),
    ],
)
def test_a_client_that_breaks_the_rules_is_told_so(
    faulty: Faulty, opcode: int, data: bytes, options: dict[str, bool], code: int
) -> None:
    with client_of(faulty()) as client:
        client.open()
        client.event()
        client.send(opcode, data, **options)
        assert client.frame() == (CLOSE, struct.pack(">H", code))


def test_a_session_can_be_refused_or_die(faulty: Faulty) -> None:
    program = faulty("--model", "m")
    with client_of(program) as client:
        assert client.open("X-Faulty: status=403")[0] == "HTTP/1.1 403 Forbidden"
    with client_of(program) as client:
        assert client.open(path="/v1/realtime?model=other")[0] == "HTTP/1.1 404 Not Found"
    assert program.get("/v1/realtime?model=m").status_code == 426
    with client_of(program) as client:
        client.open("X-Faulty: cut-events=1")
        client.event()
        client.send(TEXT, b"hello")
        assert client.event()["text"] == "hello"
        assert client.file.read() == b""
    with client_of(program) as client:
        client.open("X-Faulty: cut-events=0, cut-by=end")
        client.event()
        assert client.frame() == (CLOSE, struct.pack(">H", 1001))
    with client_of(program) as client:
        client.open("X-Faulty: cut-events=0, cut-by=crash")
        client.event()
        assert program.process.wait(10) == 1

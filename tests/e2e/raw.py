"""A caller that speaks bytes, for what no client of the field does, or does only by chance."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from e2e.daemon import LOOPBACK, Daemon

PATIENCE_S = 30.0


class Way(StrEnum):
    """How a caller goes away."""

    CLOSE = "closes"
    RESET = "resets"
    KILLED = "is killed"


@dataclass
class Answered:
    """An answer, or what there is of it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    is_whole: bool = False  # it ended as its framing told
    interim: list[int] = field(default_factory=list)

    def json(self) -> Any:
        """Its body, read."""
        return json.loads(self.body)


class Raw:
    """One connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((LOOPBACK, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""

    def send(self, data: bytes) -> None:
        """Send bytes of a request."""
        self.socket.sendall(data)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, *, version: str = "1.1") -> None:
        """Send a whole request."""
        self.send(head("POST", path, {"content-length": str(len(body)), **(headers or {})}, version) + body)

    def get(self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> None:
        """Send a request without a body."""
        self.send(head(method, path, headers or {}))

    def read_head(self) -> Answered:
        """The next head, whatever its status."""
        while b"\r\n\r\n" not in self._held:
            if not self._more():
                raise ConnectionError(f"closed before an answer: {self._held!r}")
        raw, _, self._held = self._held.partition(b"\r\n\r\n")
        line, *lines = raw.decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        assert len(headers) == len(pairs), f"a header came twice: {lines}"
        return Answered(int(line.split(" ")[1]), headers)

    def answer(self, *, to_head: bool = False) -> Answered:
        """A whole answer, or as much of it as came; 1xx answers before it are noted."""
        interim = []
        while (answered := self.read_head()).status < 200 and answered.status != 101:
            interim.append(answered.status)
        answered.interim = interim
        if to_head or answered.status in (101, 204, 304):
            answered.is_whole = True
        elif answered.headers.get("transfer-encoding") == "chunked":
            self._read_chunks(answered)
        elif "content-length" in answered.headers:
            length = int(answered.headers["content-length"])
            answered.body = self.take(length)
            answered.is_whole = len(answered.body) == length
        else:
            answered.body, answered.is_whole = self.rest(), True
        return answered

    def take(self, length: int) -> bytes:
        """So many bytes; fewer where it ends before."""
        parts, count = [self._held], len(self._held)
        while count < length and (data := self._receive()):
            parts.append(data)
            count += len(data)
        whole = b"".join(parts)
        self._held = whole[length:]
        return whole[:length]

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`."""
        while mark not in self._held:
            if not self._more():
                raise ConnectionError(f"closed before {mark!r}: {self._held[-200:]!r}")
        taken, _, self._held = self._held.partition(mark)
        return taken + mark

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        return self.take(sys.maxsize)

    def leave(self, way: Way = Way.CLOSE) -> float:
        """Go away; answers when, on the monotonic clock."""
        if way is Way.KILLED:
            return self._be_killed()
        if way is Way.RESET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left = time.monotonic()
        self.socket.close()
        return left

    def _be_killed(self) -> float:
        """The connection becomes another process's, which is killed."""
        holder = subprocess.Popen(["sleep", "60"], pass_fds=[self.socket.fileno()])
        self.socket.close()
        left = time.monotonic()
        holder.kill()
        holder.wait()
        return left

    def _more(self) -> bool:
        data = self._receive()
        self._held += data
        return bool(data)

    def _receive(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return self.socket.recv(1 << 18)
        return b""

    def _read_chunks(self, answered: Answered) -> None:
        parts = []
        with contextlib.suppress(ConnectionError):
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                parts.append(self.take(size))
                self.until(b"\r\n")
            answered.is_whole = self.until(b"\r\n") == b"\r\n"  # no trailers
        answered.body = b"".join(parts)


def head(method: str, path: str, headers: dict[str, str], version: str = "1.1") -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/{version}", "host: 127.0.0.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@contextlib.contextmanager
def calling(daemon: Daemon, **more: Any) -> Iterator[Raw]:
    """A connection for a while."""
    raw = Raw(daemon.port, **more)
    with raw.socket:
        yield raw


def chat(model: str, **more: Any) -> bytes:
    """The body of a chat."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}], **more}).encode()

"""A connection as the engine reads it: heads and bodies byte for byte, and the moment when the client leaves."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from modelgrid.services.faulty.form import Form, form_of
from modelgrid.services.faulty.ways import Ways

READ_LIMIT = 1 << 17  # of a head, and of what is read ahead: more than that waits with the client
PIECE = 1 << 16
SHOWN_LIMIT = 1 << 20  # of a body that is shown byte for byte
HELD_LIMIT = 64 << 20  # of a body that is read as JSON


class Malformed(Exception):
    """A request that breaks the rules of HTTP: a gateway should never send one."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time on both clocks."""

    monotonic: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)

    def shown(self) -> dict[str, float]:
        return {"monotonic_ms": round(self.monotonic * 1000, 3), "unix_ms": round(self.wall * 1000, 3)}


@dataclass(frozen=True)
class Head:
    """The start of a request, as it came."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def keeps_alive(self) -> bool:
        said = self.header("connection").lower()
        return "close" not in said and (self.version != "HTTP/1.0" or "keep-alive" in said)


class Body:
    """A request's body, measured and hashed as it comes. Of a form only the values are held."""

    def __init__(self, head: Head) -> None:
        self.size = 0
        self.form: Form | None = form_of(head.header("content-type"))
        self.trailers: list[str] = []
        self.is_whole = False
        self._digest = hashlib.sha256()
        self._held: bytearray | None = bytearray()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self._digest.update(data)
        if self.form is not None:
            self.form.add(data)
        if self._held is not None:
            self._held += data
            if len(self._held) > (HELD_LIMIT if self.form is None else SHOWN_LIMIT):
                self._held = None

    @property
    def held(self) -> bytes | None:
        """All of it, where it isn't too large."""
        return None if self._held is None else bytes(self._held)

    def forget(self) -> None:
        """Keep its measure only."""
        self._held = None

    def shown(self) -> dict[str, Any]:
        held = self.held
        return {
            "body": None if held is None else held.decode("utf-8", "replace"),
            "body_base64": None if held is None else base64.b64encode(held).decode(),
            "body_size": self.size,
            "body_sha256": self._digest.hexdigest(),
            "body_is_whole": self.is_whole,
            "trailers": self.trailers,
            "form": self.form.shown() if self.form else None,
        }


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    number: int
    head: Head
    body: Body
    began: Moment = field(default_factory=Moment)
    first_byte: Moment | None = None
    ended: Moment | None = None
    left: Moment | None = None  # when the client's side of the connection was seen closed, before the end
    status: int | None = None
    sent: int = 0  # bytes
    malformed: str | None = None
    closed_with: int | None = None  # the code of a WebSocket's client

    def request(self) -> dict[str, Any]:
        """For tests of fidelity: all that came, byte for byte."""
        return {
            "number": self.number,
            "method": self.head.method,
            "path": self.head.target,
            "version": self.head.version,
            "headers": [list(pair) for pair in self.head.headers],
            "malformed": self.malformed,
            **self.body.shown(),
        }

    def course(self) -> dict[str, Any]:
        """For tests of cancellation: when what happened. The monotonic clock is the machine's."""
        moments = {"began": self.began, "first_byte": self.first_byte, "ended": self.ended, "left": self.left}
        return {
            "number": self.number,
            "path": self.head.target,
            "request_id": self.head.header("x-request-id"),
            "status": self.status,
            "sent_bytes": self.sent,
            "received_bytes": self.body.size,
            "closed_with": self.closed_with,
            **{name: moment and moment.shown() for name, moment in moments.items()},
        }


class Departures:
    """Tells when a peer closes, even while nothing is read from it: epoll sees it behind unread bytes."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Connection] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)

    def watch(self, connection: Connection) -> None:
        self._watched[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def unwatch(self, connection: Connection) -> None:
        if self._watched.get(connection.descriptor) is connection:  # else the number is another's by now
            del self._watched[connection.descriptor]
            with contextlib.suppress(OSError):
                self._epoll.unregister(connection.descriptor)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            if connection := self._watched.get(descriptor):
                connection.leave()


class Connection:
    """One client. Its task is cancelled when the client leaves while its request is being answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self.reader = reader
        self.writer = writer
        self.exchange: Exchange | None = None
        self.ways: Ways | None = None  # of the last request
        self._task = task
        self._socket: socket.socket = writer.get_extra_info("socket")
        self.descriptor = self._socket.fileno()

    def leave(self) -> None:
        if self.exchange is not None and self.exchange.left is None and self.exchange.ended is None:
            self.exchange.left = Moment()
            self._task.cancel()

    async def head(self) -> Head | None:
        """The next request's head, or None when the client is done."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Malformed("the head is too large") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        start, *rest = raw[:-4].decode("latin-1").split("\r\n")
        words = start.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Malformed(f"no request line: {start!r}")
        headers = []
        for line in rest:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise Malformed(f"no header: {line!r}")
            headers.append((name, value.strip(" \t")))
        return Head(words[0], words[1], words[2], tuple(headers))

    async def read_body(self, exchange: Exchange, ways: Ways) -> None:
        """Read the body as it comes, as slowly as is wanted."""
        head, body = exchange.head, exchange.body
        try:
            if head.all("transfer-encoding"):
                await self._read_chunks(head, body, ways)
            else:
                await self._read_sized(length_of(head), body, ways)
        except ValueError as error:
            raise Malformed(str(error)) from None
        body.is_whole = True

    async def _read_sized(self, length: int, body: Body, ways: Ways) -> None:
        while length:
            if ways.read_delay:
                await asyncio.sleep(ways.read_delay)
            data = await self.reader.read(min(length, PIECE, ways.read_size))
            if not data:
                raise ConnectionError("the client left within its body")
            length -= len(data)
            body.add(data)

    async def _read_chunks(self, head: Head, body: Body, ways: Ways) -> None:
        if head.header("transfer-encoding").lower() != "chunked" or len(head.all("transfer-encoding")) > 1:
            raise Malformed("a transfer encoding that is not chunked")
        if head.all("content-length"):
            raise Malformed("both a length and a transfer encoding")
        while size := _chunk_size(await self.reader.readuntil(b"\r\n")):
            await self._read_sized(size, body, ways)
            if await self.reader.readexactly(2) != b"\r\n":
                raise Malformed("a chunk that is longer than its size")
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            body.trailers.append(line.decode("latin-1").rstrip("\r\n"))

    def reset(self) -> None:
        """Close with a reset: what is not sent yet is lost."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def length_of(head: Head) -> int:
    lengths = set(head.all("content-length"))
    if len(lengths) > 1 or not all(re.fullmatch(r"[0-9]+", length) for length in lengths):
        raise Malformed(f"no length: {', '.join(sorted(lengths))}")
    return int(lengths.pop()) if lengths else 0


def _chunk_size(line: bytes) -> int:
    found = re.fullmatch(rb"([0-9a-fA-F]+)(?:;[^\r\n]*)?\r\n", line)
    if not found:
        raise Malformed(f"no size of a chunk: {line!r}")
    return int(found[1], 16)

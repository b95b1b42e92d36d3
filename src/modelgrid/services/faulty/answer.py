"""An answer, and how it is written: in whatever framing, as slowly, and ending as early as the ways tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

from modelgrid.services.faulty.ending import die
from modelgrid.services.faulty.ways import Ways
from modelgrid.services.faulty.wire import Connection, Exchange, Moment

EVENTS = "text/event-stream"
FILLER = b"." * 8192
Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is said. Each piece of a stream is written by itself, after its delay."""

    status: int
    pieces: tuple[bytes, ...]
    content_type: str = "application/json"
    is_stream: bool = False
    headers: tuple[str, ...] = ()
    error_event: bytes = b""  # what a stream ends with when it fails


def of_json(value: Json, status: int = 200) -> Answer:
    return Answer(status, (json.dumps(value).encode(),))


def of_events(pieces: Iterable[bytes], error_event: bytes = b"") -> Answer:
    error_event = error_event or event({"error": error("told to fail within a stream")["error"]})
    return Answer(200, tuple(pieces), EVENTS, is_stream=True, error_event=error_event)


def event(value: Json, name: str = "") -> bytes:
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {json.dumps(value)}\n\n".encode()


def error(message: str) -> Json:
    return {"error": {"message": message, "type": "engine_error", "param": None, "code": None}}


class Cut(Exception):
    """The answer ends here, early."""


class Sender:
    """Writes one answer."""

    def __init__(self, connection: Connection, exchange: Exchange, ways: Ways) -> None:
        self._connection = connection
        self._writer = connection.writer
        self._exchange = exchange
        self._ways = ways
        self._body_sent = 0
        self._is_chunked = False

    async def send(self, answer: Answer) -> bool:
        """Whether the connection may be used again."""
        try:
            return await self._send(answer)
        except Cut:
            await self._writer.drain()
            if self._ways.cut_by == "reset":
                self._connection.reset()
            return False

    async def interim(self, status: int) -> None:
        """A 1xx answer."""
        link = "link: </style.css>; rel=preload\r\n" if status == 103 else ""
        await self._write(f"HTTP/1.1 {status} {_reason(status)}\r\n{link}\r\n".encode())

    async def raw(self, data: bytes) -> None:
        """Bytes of somebody else's making."""
        await self._write(data)

    async def _send(self, answer: Answer) -> bool:
        ways = self._ways
        if ways.cut == "before":
            self._cut("before the first byte")
        for status in ways.interim:
            await self.interim(status)
        self._exchange.status = answer.status
        if ways.garbage in ("http", "json", "lengths"):
            return await self._garbage(ways.garbage)
        framing = self._framing(answer)
        self._is_chunked = framing == "chunked"
        head = self._head(answer, framing)
        if ways.cut == "half-head":
            await self._write(head[: len(head) // 2])
            self._cut("within the head")
        await self._write(head)
        if ways.cut == "head":
            self._cut("after the head")
        if self._exchange.head.method == "HEAD" or not _has_body(answer.status):
            return self._keeps_alive(framing)
        if ways.body_delay:
            await asyncio.sleep(ways.body_delay)
        await self._body(answer)
        if self._is_chunked:
            trailers = "".join(f"{line}\r\n" for line in ways.trailers)
            await self._write(f"0\r\n{trailers}\r\n".encode("latin-1"))
        return self._keeps_alive(framing)

    def _framing(self, answer: Answer) -> str:
        wanted = "chunked" if self._ways.trailers or self._ways.garbage == "chunk" else self._ways.framing
        if self._is_old or self._exchange.head.version == "HTTP/1.0":
            return "close" if answer.is_stream or wanted in ("close", "chunked") or self._ways.endless else "sized"
        return wanted or ("chunked" if answer.is_stream or self._ways.endless else "sized")

    @property
    def _is_old(self) -> bool:
        return self._ways.http10

    def _keeps_alive(self, framing: str) -> bool:
        return framing != "close" and not self._ways.close and not self._is_old and self._exchange.head.keeps_alive

    def _head(self, answer: Answer, framing: str) -> bytes:
        ways = self._ways
        lines = [f"{'HTTP/1.0' if self._is_old else 'HTTP/1.1'} {answer.status} {_reason(answer.status)}"]
        lines += [f"content-type: {answer.content_type}", *answer.headers, *ways.headers]
        if ways.trailers:
            lines.append("trailer: " + ", ".join(line.partition(":")[0] for line in ways.trailers))
        if framing == "chunked":
            lines.append("transfer-encoding: chunked")
        elif framing == "sized" and _has_body(answer.status):
            lines.append(f"content-length: {sum(map(len, answer.pieces))}")
        if ways.close or (framing == "close" and not self._is_old):
            lines.append("connection: close")
        if ways.garbage == "header":
            lines.append("this header has no colon")
        for at in range(0, ways.huge_head, 4096):
            lines.append(f"x-huge-{at // 4096}: {'h' * min(4096, ways.huge_head - at)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _body(self, answer: Answer) -> None:
        ways = self._ways
        if ways.garbage == "chunk":
            await self._write(b"not a size\r\n" + answer.pieces[0])
            raise Cut
        events = self._events_until(answer)
        at = self._bytes_until(answer)
        for number, piece in enumerate(answer.pieces):
            if events is not None and number >= events:
                await self._end_early(answer, f"after {number} chunks of a stream")
                return
            if answer.is_stream and ways.chunk_delay:
                await asyncio.sleep(ways.chunk_delay)
            if at is not None and self._body_sent + len(piece) > at:
                await self._part(piece, at - self._body_sent)
            await self._piece(b"data: {broken\n\n" if ways.garbage == "event" and number == 1 else piece)
        while ways.endless:
            await self._piece(FILLER)
            await asyncio.sleep(0)

    def _events_until(self, answer: Answer) -> int | None:
        if not answer.is_stream:
            return None
        if self._ways.crash_mid_stream is not None:
            return self._ways.crash_mid_stream
        return len(answer.pieces) // 2 if self._ways.cut == "middle" else self._ways.cut_events

    def _bytes_until(self, answer: Answer) -> int | None:
        if not answer.is_stream and (self._ways.cut_body or self._ways.cut == "middle"):
            return sum(map(len, answer.pieces)) // 2
        return int(self._ways.cut) if self._ways.cut.isdecimal() else None

    async def _end_early(self, answer: Answer, where: str) -> None:
        if self._ways.crash_mid_stream is None and self._ways.cut_by in ("error", "end"):
            if self._ways.cut_by == "error":
                await self._piece(answer.error_event)
            return  # and then the body is ended as if it were whole
        await self._writer.drain()
        self._cut(where)

    async def _part(self, piece: bytes, length: int) -> NoReturn:
        """The beginning of a piece, whose framing promises all of it."""
        await self._write((b"%x\r\n" % len(piece) if self._is_chunked else b"") + piece[:length])
        self._cut(f"after {self._ways.cut or 'half'} bytes of the body")

    def _cut(self, where: str) -> NoReturn:
        if self._ways.cut_by == "crash" or (self._ways.crash_mid_stream is not None and "stream" in where):
            die(f"RuntimeError: told to crash {where}", 1)
        raise Cut

    async def _piece(self, piece: bytes) -> None:
        self._body_sent += len(piece)
        await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)

    async def _garbage(self, kind: str) -> bool:
        """Bytes that are no HTTP, an answer whose JSON is broken, or one with two lengths."""
        if kind == "http":
            await self._write(b"\x00\x16\x03 this is not HTTP\r\n\r\n")
            return False
        body = b'{"choices": [{"message": '
        lengths = [len(body), len(body) - 9] if kind == "lengths" else [len(body)]
        told = "".join(f"content-length: {length}\r\n" for length in lengths)
        await self._write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{told}\r\n".encode() + body)
        return kind == "json"

    async def _write(self, data: bytes) -> None:
        step = 1 if self._ways.byte_delay else max(1, len(data))
        for at in range(0, len(data), step):
            self._writer.write(data[at : at + step])
            self._exchange.sent += min(step, len(data) - at)
            if self._exchange.first_byte is None:
                self._exchange.first_byte = Moment()
            await self._writer.drain()
            if self._ways.byte_delay:
                await asyncio.sleep(self._ways.byte_delay)


def _has_body(status: int) -> bool:
    return status >= 200 and status not in (204, 304)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Odd"

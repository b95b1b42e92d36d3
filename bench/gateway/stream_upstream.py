"""An upstream that streams: ``python -m bench.gateway.stream_upstream PORT…``

Each answer is `chunks` events, one every `interval_ms`, as server-sent events in HTTP chunks, then one with the usage
and ``[DONE]``. ``GET /pace?chunks=N&interval_ms=M`` sets both for the requests to come, since not every router passes
on what a body says.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import cast
from urllib.parse import parse_qs

import httptools
import uvloop
from bench.gateway import bodies
from bench.gateway.upstream import INFO_PATHS


def _in_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = _in_chunk(bodies.chunk())
END = _in_chunk(bodies.chunk(usage=True)) + _in_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
PLAIN = {
    b"/health": b"{}",
    b"/v1/models": bodies.models(),
    **{b"/" + path.encode(): bodies.server_info() for path in INFO_PATHS},
}


class Pace:
    """How fast streams are, and the wheel that turns them: one timer for all, so that timers cost little.

    The streams of a slot are written together; a stream goes into the slot that was written last, so that its next
    chunk comes a whole turn later.
    """

    SLOTS = 10

    def __init__(self) -> None:
        self.chunks = 100
        self.interval_ms = bodies.CHUNK_INTERVAL_MS
        self._wheel: list[deque[Connection]] = [deque() for _ in range(self.SLOTS)]
        self._slot = 0

    def add(self, connection: Connection) -> None:
        self._wheel[self._slot - 1].append(connection)

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self.interval_ms / 1000 / self.SLOTS
            await asyncio.sleep(max(0.0, due - loop.time()))
            slot = self._slot
            self._slot = (slot + 1) % self.SLOTS
            streams = self._wheel[slot]
            for _ in range(len(streams)):
                stream = streams.popleft()
                if stream.step():
                    streams.append(stream)


class Connection(asyncio.Protocol):
    """One of a router's connections."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._left = 0
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def step(self) -> bool:
        """Write one more; tells whether there will be another."""
        if self._transport is None:
            return False
        self._left -= 1
        if self._left > 0:
            self._transport.write(CHUNK)
            return True
        self._transport.write(CHUNK + END)
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # SMG asks for HTTP/2 first
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        self._url = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._url.partition(b"?")
        if path == b"/pace":
            self._set_pace(parse_qs(query.decode()))
            self._answer(b"{}")
        elif path in PLAIN:
            self._answer(PLAIN[path])
        elif b'"stream":true' in b"".join(self._body).replace(b": ", b":"):
            self._stream()
        else:
            self._answer(bodies.completion())

    def _set_pace(self, values: dict[str, list[str]]) -> None:
        self._pace.chunks = int(values["chunks"][0])
        self._pace.interval_ms = int(values["interval_ms"][0])

    def _stream(self) -> None:
        """The first chunk goes with the head."""
        assert self._transport is not None
        self._left = self._pace.chunks - 1
        if self._left > 0:
            self._transport.write(HEAD + CHUNK)
            self._pace.add(self)
        else:
            self._transport.write(HEAD + CHUNK + END)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )


async def _serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    pace = Pace()
    for port in ports:
        await loop.create_server(lambda: Connection(pace), "127.0.0.1", port, backlog=4096)
    await pace.turn()


if __name__ == "__main__":
    uvloop.run(_serve([int(word) for word in sys.argv[1:]]))

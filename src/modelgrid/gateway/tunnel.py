"""A WebSocket: after the handshake, bytes go both ways as they come."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote_plus

from modelgrid.gateway.access import without_credential
from modelgrid.gateway.deadline import Deadline
from modelgrid.gateway.exchange import EngineHead
from modelgrid.gateway.relay import Relay
from modelgrid.gateway.request import Head, Request
from modelgrid.gateway.routes import Destination
from modelgrid.gateway.upstream import Upstream

_SWITCHED = 101
_AGREED = EngineHead(_SWITCHED, b"")


class Far(Protocol):
    """The caller's connection."""

    def write(self, data: bytes) -> None: ...
    def become(self, tunnel: SocketRelay) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...


class SocketRelay(Relay):
    """A WebSocket on its way to a replica, and then between the two. It is in flight there until either side ends."""

    far: Far
    _deadline: Deadline | None = None

    @property
    def is_begun(self) -> bool:
        """See `Job`."""
        return self._deadline is not None or self._reply.is_begun

    def on_switch(self, lines: bytes, rest: bytes) -> bool:
        """The engine agrees."""
        upstream = self._upstream
        assert upstream is not None
        self._status = _SWITCHED
        self._judge(_AGREED)
        self._deadline = Deadline(self._board.loop, self._expire)
        self._move_deadline()
        head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n%b\r\n%b"
        self.far.write(head % (lines, rest))
        upstream.join(self)
        self.far.become(self)
        return True

    # What the two connections call.

    def from_caller(self, data: bytes) -> None:
        """On to the engine."""
        self._move_deadline()
        if self._upstream is not None and not self._upstream.write(data):
            self.far.pause_reading()

    def from_engine(self, data: bytes) -> None:
        """On to the caller."""
        self._move_deadline()
        self.far.write(data)

    def caller_ended(self) -> None:
        """The caller is gone, or has nothing more to say: after its last frame that is the same."""
        self._close()

    def engine_ended(self) -> None:
        """See `caller_ended`."""
        self._upstream = None
        self._close()

    def engine_is_full(self) -> None:
        """The engine doesn't read as fast as the caller writes."""
        self.far.pause_reading()

    def engine_has_room(self) -> None:
        """After `engine_is_full`."""
        self.far.resume_reading()

    def leave(self) -> None:
        """The caller is gone."""
        if self._deadline is None:
            super().leave()
        else:
            self._close()

    def stop(self) -> None:
        """The worker ends now."""
        if self._deadline is None:
            super().stop()
        else:
            self._close()

    # What differs from a request with a body.

    def _transmit(self, upstream: Upstream, destination: Destination) -> None:
        head = self._request.head
        lines = self._lines
        protocols = head.read.get(b"sec-websocket-protocol")
        if protocols is not None:
            name = b"sec-websocket-protocol:"
            kept_lines = [line for line in lines.splitlines(keepends=True) if not line.lower().startswith(name)]
            lines = b"".join(kept_lines)
            if kept := without_credential(protocols):
                lines += b"sec-websocket-protocol: %b\r\n" % kept
        asked = b"GET %b%b%b HTTP/1.1\r\n%b%bconnection: Upgrade\r\nupgrade: websocket\r\n\r\n" % (
            destination.base,
            self._found.path,
            _named(head.query, destination.served),
            destination.lines,
            lines,
        )
        self._upstream = upstream
        upstream.send(self, asked, b"")

    def _close(self) -> None:
        if self._is_over:
            return
        assert self._deadline is not None
        self._deadline.close()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.end()
        self._board.replicas.finish(self._lane.model)
        self._end(_SWITCHED)
        self.far.close()

    def _move_deadline(self) -> None:
        assert self._deadline is not None
        self._deadline.move(self._board.options.idle_timeout_s)

    def _expire(self) -> None:
        self._close()


def wants_socket(head: Head) -> bool:
    """A request offers to go on as a WebSocket."""
    connection = head.read.get(b"connection", b"").lower().split(b",")
    is_offered = b"upgrade" in [token.strip() for token in connection]
    return is_offered and head.read.get(b"upgrade", b"").lower() == b"websocket" and head.method == "GET"


def query_of(request: Request) -> list[tuple[str, str]]:
    """A request's query, read."""
    return parse_qsl(request.head.query.removeprefix(b"?").decode("latin-1"), keep_blank_values=True)


def _named(query: bytes, model: str) -> bytes:
    """A query with `model` where it names one, and every other byte as it came."""
    parts = query.split(b"&")
    for place, part in enumerate(parts):
        name, equals, value = part.removeprefix(b"?").partition(b"=")
        if unquote_plus(name.decode("latin-1")) == "model" and unquote_plus(value.decode("latin-1")) != model:
            mark = part[: len(part) - len(part.removeprefix(b"?"))]
            parts[place] = b"%b%b%b%b" % (mark, name, equals or b"=", quote(model, safe="").encode())
    return b"&".join(parts)

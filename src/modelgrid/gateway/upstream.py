"""Connections to engines: one connection that carries one request at a time, and the pool that keeps them."""

from __future__ import annotations

import asyncio
import ssl
from functools import cached_property
from typing import Final, Literal, Protocol, cast

import httptools
import msgspec

from modelgrid.gateway.deadline import Deadline
from modelgrid.gateway.options import HEAD_BYTES, UPSTREAM_IDLE, UPSTREAM_IDLE_S, GatewayOptions
from modelgrid.gateway.request import HOP_BY_HOP, Line, forwarded, note
from modelgrid.gateway.routes import Origin
from modelgrid.spec.units import format_bytes

_NOT_RELAYED: Final = HOP_BY_HOP | {b"content-length"}
_SMALL_BYTES: Final = 64 << 10  # a body up to this is joined with its head, to be one write


class EngineHead(msgspec.Struct, frozen=True):
    """The head of an engine's answer."""

    status: int
    lines: bytes  # the headers that go on
    type: bytes  # the media type, in lower case, without parameters
    is_encoded: bool  # it has a Content-Encoding
    has_id: bool  # it has an X-Request-Id
    length: int | None  # None: it isn't told beforehand

    @property
    def is_events(self) -> bool:
        """It is a stream of server-sent events that can be read, and added to."""
        return self.type == b"text/event-stream" and not self.is_encoded


class Loss(msgspec.Struct, frozen=True):
    """Why an answer won't come, or won't end."""

    outcome: Literal["refused", "broke", "timed_out"]
    why: str  # continues "the engine …"
    is_stale: bool = False  # a kept connection that the engine closed as we used it: says nothing of its health


class Exchange(Protocol):
    """Who asked, and gets the answer: `on_head` once, then `on_body` until `ended`; or `on_lost` at any time.

    Once `on_body` says that it ended, or `on_lost` was called, the connection is no longer the exchange's.
    """

    def on_head(self, head: EngineHead) -> None: ...
    def on_body(self, data: bytes, ended: bool) -> None: ...
    def on_lost(self, loss: Loss) -> None: ...


class Upstream(asyncio.Protocol):
    """One connection to an engine."""

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self.origin = origin
        self._pool = pool
        self._deadline = Deadline(pool.loop, self._expire)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._was_used = False
        self._is_reused = False
        self._is_heard = False  # a byte of the answer came
        self._reset()

    _lines: list[Line]
    _special: dict[bytes, bytes]
    _head: EngineHead | None
    _is_head_new: bool
    _is_interim: bool  # what is being read is a 1xx answer: another follows
    _is_ended: bool
    _is_close_delimited: bool
    _is_kept: bool
    _pieces: list[bytes]
    _is_begun: bool  # bytes of the body came
    _head_bytes: int
    _bare_bytes: int  # received since bytes of the body last came

    @property
    def is_open(self) -> bool:
        """It can carry a request."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Send a request whose answer goes to `exchange`."""
        assert self._transport is not None
        assert self._exchange is None
        self._exchange = exchange
        self._is_reused = self._was_used
        self._was_used = True
        self._is_heard = False
        self._reset()
        self._deadline.move(self._pool.options.first_byte_timeout_s)
        if len(body) <= _SMALL_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def leave(self) -> None:
        """The answer isn't wanted any more: the engine sees the connection close at once."""
        self._exchange = None
        self.close()

    def pause(self) -> None:
        """Whoever reads the answer can't take more now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._deadline.stop()

    def resume(self) -> None:
        """After `pause`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._deadline.move(self._limit_s)

    def rest(self) -> None:
        """Kept in the pool, for a while."""
        self._deadline.move(UPSTREAM_IDLE_S)

    def close(self) -> None:
        """Close, without regard to what is still to be sent or read."""
        self._deadline.close()
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # an engine that speaks unasked can't be asked
            self.close()
            return
        self._is_heard = True
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._lose(Loss("broke", "switched protocols, which nobody asked for"))
        except httptools.HttpParserError as error:
            if not self._is_ended:  # what follows an answer is not ours; the connection isn't kept either
                self._lose(Loss("broke", f"answered with what is not HTTP: {error}"))
                return
            self._is_kept = False
            self._deliver()
        else:
            self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._deadline.close()
        self._pool.forget(self)
        if self._exchange is None:
            return
        if self._head is not None and self._is_close_delimited and exc is None:
            self._is_ended = True
            self._deliver()
            return
        why = "closed the connection " if exc is None else f"lost the connection ({exc}) "
        if self._head is not None:
            why += "in the middle of its answer"
        else:
            why += "before it answered"
        self._lose(Loss("broke", why, is_stale=self._is_reused and not self._is_heard))

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._is_ended:
            self._is_kept = False  # more than was asked for
            return
        self._lines = []
        self._special = {}
        self._is_interim = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:  # trailers, and what follows an answer
            return
        self._head_bytes += len(name) + len(value)
        lower = name.lower()
        if lower in _READ:
            note(self._special, lower, value)
        if lower not in _NOT_RELAYED:
            self._lines.append((lower, b"%b: %b\r\n" % (name, value)))

    def on_headers_complete(self) -> None:
        if self._head is not None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._is_interim = True
            return
        special = self._special
        length = special.get(b"content-length")
        is_chunked = b"transfer-encoding" in special
        is_bodyless = status in (204, 304)
        self._is_close_delimited = length is None and not is_chunked and not is_bodyless
        self._is_kept = self._parser.should_keep_alive() and not self._is_close_delimited
        self._head = EngineHead(
            status=status,
            lines=forwarded(self._lines, special.get(b"connection")),
            type=special.get(b"content-type", b"").partition(b";")[0].strip().lower(),
            is_encoded=special.get(b"content-encoding", b"identity").lower() != b"identity",
            has_id=b"x-request-id" in special,
            length=0 if is_bodyless else None if length is None else int(length),
        )
        self._is_head_new = True

    def on_body(self, data: bytes) -> None:
        if not self._is_ended:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if not self._is_interim:
            self._is_ended = True

    # What follows from it.

    def _reset(self) -> None:
        self._lines = []
        self._special = {}
        self._head = None
        self._is_head_new = False
        self._is_interim = False
        self._is_ended = False
        self._is_close_delimited = False
        self._is_kept = False
        self._pieces = []
        self._is_begun = False
        self._head_bytes = 0
        self._bare_bytes = 0

    @property
    def _limit_s(self) -> float:
        """How long the next bytes of the body may take."""
        options = self._pool.options
        return options.idle_timeout_s if self._is_begun else options.first_byte_timeout_s

    def _deliver(self) -> None:
        """Hand on what one read brought, joined."""
        exchange = self._exchange
        if exchange is None:
            return
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._is_begun = True
            self._bare_bytes = 0
            self._deadline.move(self._limit_s)
        if self._head_bytes > HEAD_BYTES or (self._bare_bytes > HEAD_BYTES and not self._is_ended):
            self._lose(Loss("broke", f"sent a head larger than {format_bytes(HEAD_BYTES)}"))
            return
        if self._head is None:
            return
        if self._is_head_new:
            self._is_head_new = False
            exchange.on_head(self._head)
        elif not pieces and not self._is_ended:
            return
        if self._exchange is None:  # it left
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._is_ended:
            self._exchange = None
            self._pool.put_back(self, self._is_reusable())
        exchange.on_body(data, self._is_ended)

    def _is_reusable(self) -> bool:
        # An engine may answer before it has read all of the request; what is left of it would begin the next one.
        return self._is_kept and self._transport is not None and self._transport.get_write_buffer_size() == 0

    def _lose(self, loss: Loss) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        if exchange is not None:
            exchange.on_lost(loss)

    def _expire(self) -> None:
        if self._exchange is None:
            self.close()
        elif self._is_begun:
            self._lose(Loss("timed_out", f"sent nothing for {self._limit_s:g} s in the middle of its answer"))
        else:
            self._lose(Loss("timed_out", f"did not begin to answer within {self._limit_s:g} s"))


_READ: Final = frozenset(
    (b"connection", b"content-encoding", b"content-length", b"content-type", b"transfer-encoding", b"x-request-id")
)


class Pool:
    """Kept connections to engines, the last used first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: GatewayOptions) -> None:
        self.loop = loop
        self.options = options
        self._idle: dict[Origin, list[Upstream]] = {}
        self._allowed: frozenset[Origin] = frozenset()

    def take(self, origin: Origin) -> Upstream | None:
        """A kept connection, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            upstream = idle.pop()
            if upstream.is_open:
                return upstream
        return None

    async def connect(self, origin: Origin) -> Upstream | Loss:
        """A new connection."""
        limit_s = self.options.connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                _, upstream = await self.loop.create_connection(
                    lambda: Upstream(self, origin), origin.host, origin.port, ssl=self._tls if origin.is_tls else None
                )
                return upstream
        except TimeoutError:
            return Loss("refused", f"did not take a connection within {limit_s:g} s")
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            return Loss("refused", f"could not be reached: {error}")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The system's certificates, names checked; made when first needed, as it takes a while."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    def put_back(self, upstream: Upstream, is_reusable: bool) -> None:
        """A connection whose answer has ended, or that nobody wants."""
        if is_reusable and upstream.is_open and upstream.origin in self._allowed:
            idle = self._idle.setdefault(upstream.origin, [])
            if len(idle) < UPSTREAM_IDLE:
                upstream.rest()
                idle.append(upstream)
                return
        upstream.close()

    def forget(self, upstream: Upstream) -> None:
        """A connection that is lost."""
        idle = self._idle.get(upstream.origin)
        if idle and upstream in idle:
            idle.remove(upstream)

    def allow(self, origins: frozenset[Origin]) -> None:
        """Keep connections to `origins` only."""
        self._allowed = origins
        for origin in self._idle.keys() - origins:
            for upstream in self._idle.pop(origin):
                upstream.close()

    def close(self) -> None:
        """Close what is kept."""
        self.allow(frozenset())

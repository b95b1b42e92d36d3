"""Connections to engines: one connection that carries one request at a time, and the pool that keeps them."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Set
from functools import cached_property
from typing import Final, cast

import httptools
import structlog

from modelgrid.gateway.deadline import Deadline
from modelgrid.gateway.exchange import EngineHead, EngineTunnel, Exchange, Loss
from modelgrid.gateway.heads import Heads
from modelgrid.gateway.options import ENGINE_HEADS, HEAD_BYTES, UPSTREAM_IDLE, UPSTREAM_IDLE_S, GatewayOptions
from modelgrid.gateway.request import HOP_BY_HOP, Line, forwarded, note
from modelgrid.spec.units import format_bytes

_log = structlog.get_logger()

_NOT_RELAYED: Final = (  # what a browser does with an answer is the gateway's to say: it is the site, engines are none
    HOP_BY_HOP
    | {b"content-length", b"set-cookie", b"set-cookie2", b"strict-transport-security", b"clear-site-data", b"alt-svc"}
    | {b"access-control-" + name for name in b"allow-origin allow-credentials allow-private-network".split()}
    | {b"access-control-" + name for name in b"allow-methods allow-headers expose-headers max-age".split()}
)
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset, and drop what is not sent
_SMALL_BYTES: Final = 64 << 10  # a body up to this is joined with its head, to be one write


class Origin:
    """Where connections lead, and those that are kept, the last used last. Made by `Pool.origin`."""

    __slots__ = ("host", "idle", "is_allowed", "is_tls", "port")

    def __init__(self, host: str, port: int, is_tls: bool) -> None:
        self.host = host  # or the path of a socket, where there is no port
        self.port = port
        self.is_tls = is_tls
        self.is_allowed = True  # a target of the table in force is there
        self.idle: list[Upstream] = []

    def __repr__(self) -> str:
        return f"Origin({self.host}:{self.port})"


class Upstream:
    """One connection to an engine."""

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self.origin = origin
        self._pool = pool
        self._deadline = Deadline(pool.loop, self._expire)
        self._heads = pool.heads
        self._first_byte_s = pool.options.first_byte_timeout_s
        self._idle_s = pool.options.idle_timeout_s
        self._exchange: Exchange | None = None
        self._tunnel: EngineTunnel | None = None

    # What most answers don't need is said here, so that it costs them nothing.
    _transport: asyncio.Transport | None = None
    _parser: httptools.HttpResponseParser | None = None  # of this answer, where it has to be parsed
    _was_used = False
    _is_reused = False
    _is_heard = False  # a byte of the answer came
    _is_sent = True  # all of the request was written
    _is_full = False  # no more of the request's body can be taken now

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
    _length: int | None
    _is_chunked: bool
    _is_at_chunk: bool  # the parser stands before a chunk
    _first: bytes  # what the answer began with

    @property
    def is_open(self) -> bool:
        """It can carry a request."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, exchange: Exchange, head: bytes, body: bytes, *, is_whole: bool = True) -> None:
        """Send a request whose answer goes to `exchange`; one that isn't whole goes on by `write`."""
        assert self._transport is not None
        assert self._exchange is None
        self._exchange = exchange
        self._is_reused = self._was_used
        self._was_used = True
        self._is_heard = False
        self._is_begun = False
        self._is_sent = is_whole
        self._deadline.move(self._first_byte_s)
        if len(body) <= _SMALL_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    def write(self, data: bytes) -> bool:
        """More of the request's body; False where the rest should wait for `Exchange.on_room`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if self._tunnel is None:  # which keeps the time itself
                self._deadline.move(self._first_byte_s)
        return not self._is_full

    def sent(self) -> None:
        """The request is whole now."""
        self._is_sent = True

    def join(self, tunnel: EngineTunnel) -> None:
        """From now on, bytes go both ways unread."""
        self._exchange = None
        self._tunnel = tunnel
        self._deadline.stop()

    def end(self) -> None:
        """Close, once what was written is sent."""
        if self._transport is not None:
            self._transport.close()
            self._deadline.move(self._idle_s)

    def leave(self) -> None:
        """The answer isn't wanted any more: the engine sees the connection close at once."""
        self._exchange = None
        if self._transport is not None and not (self._is_heard and self._is_sent):
            # An orderly end would stand behind all that the engine hasn't read of the request, perhaps for ever.
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
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
            if self._tunnel is None:
                self._deadline.move(self._limit_s)

    def rest(self) -> bool:
        """Be kept in the pool, for a while. False where it can't be: it is closed, or not all of the request is sent.
        An engine may answer before it has read all of it; what is left would begin the next one."""
        transport = self._transport
        if not self._is_sent or transport is None or transport.get_write_buffer_size() or transport.is_closing():
            return False
        self._deadline.move(UPSTREAM_IDLE_S)
        return True

    def close(self) -> None:
        """Close, without regard to what is still to be sent or read."""
        self._deadline.close()
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        try:
            self._receive(data, exchange)
        except Exception:  # a defect of ours: nobody may wait for an answer that won't come
            _log.exception("answer failed", engine=repr(self.origin))
            self._exchange = None
            self.close()
            if exchange is not None:
                exchange.on_defect()

    def _receive(self, data: bytes, exchange: Exchange | None) -> None:
        if exchange is None:
            if self._tunnel is not None:
                self._tunnel.from_engine(data)
            else:
                self.close()  # an engine that speaks unasked can't be asked
            return
        if not self._is_heard:
            self._is_heard = True
            if (seen := self._heads.find(data)) is not None:
                head, start, length = seen
                if len(data) - start == length:
                    self._exchange = None
                    self._pool.put_back(self, is_reusable=True)
                    exchange.on_whole(head, data[start:])
                    return
            self._begin(data)
        elif self._is_at_chunk and exchange.takes_chunks and _are_chunks(data):
            self._deadline.move(self._idle_s)
            exchange.on_chunks(data)
            return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._is_ended:  # what follows an answer is not ours; the connection isn't kept either
                if isinstance(error, httptools.HttpParserUpgrade):
                    self._switch(data[error.args[0] :])
                else:
                    why = error.__context__ if isinstance(error.__context__, _Unreadable) else error
                    self._lose(Loss("broke", f"answered with what is not HTTP: {why}"))
                return
            self._is_kept = False
        if self._is_at_chunk and data[-1:] != b"\n":  # the next one's size has begun
            self._is_at_chunk = False
        self._deliver()

    def _switch(self, rest: bytes) -> None:
        exchange = self._exchange
        is_taken = exchange is not None and exchange.on_switch(b"".join([line for _, line in self._lines]), rest)
        if not is_taken:
            self._lose(Loss("broke", "switched protocols, which nobody asked for"))

    def pause_writing(self) -> None:
        self._is_full = True
        if self._tunnel is not None:
            self._tunnel.engine_is_full()

    def resume_writing(self) -> None:
        self._is_full = False
        if self._tunnel is not None:
            self._tunnel.engine_has_room()
        elif self._exchange is not None:
            self._exchange.on_room()

    def eof_received(self) -> bool:
        """The engine sends no more: close, also where TLS asks."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._deadline.close()
        self._pool.forget(self)
        if self._exchange is None:
            if self._tunnel is not None:
                self._tunnel.engine_ended()
            return
        if not self._is_heard:
            self._head = None
        elif self._head is not None and self._is_close_delimited and exc is None:
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
        value = value.rstrip(b" \t")
        lower = name.lower()
        if lower in _READ:
            note(self._special, lower, value)
        if lower not in _NOT_RELAYED:
            self._lines.append((lower, b"%b: %b\r\n" % (name, value)))

    def on_headers_complete(self) -> None:
        if self._head is not None:
            return
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._is_interim = True
            self._first = b""  # two heads: not to be remembered as one
            return
        if status < 100 or parser.get_http_version() not in ("1.1", "1.0"):
            raise _Unreadable(f"HTTP/{parser.get_http_version()} with the status {status:03}")
        special = self._special
        length = special.get(b"content-length")
        coding = special.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":  # what is left of it when unchunked isn't the answer
            raise _Unreadable(f"a Transfer-Encoding of {coding.decode('latin-1')!r}")
        is_chunked = coding is not None
        is_bodyless = status in (204, 304)
        self._is_close_delimited = length is None and not is_chunked and not is_bodyless
        self._is_kept = parser.should_keep_alive() and not self._is_close_delimited
        self._head = EngineHead(
            status,
            forwarded(self._lines, special.get(b"connection")),
            type=special.get(b"content-type", b"").partition(b";")[0].strip().lower(),
            is_encoded=special.get(b"content-encoding", b"identity").lower() != b"identity",
            has_id=b"x-request-id" in special,
            says_when=b"retry-after" in special,
            is_sized=is_bodyless or length is not None,
            is_kept=self._is_kept,
            ends_by_close=self._is_close_delimited,
        )
        self._length = 0 if is_bodyless else None if length is None else int(length)
        self._is_head_new = True
        self._is_chunked = self._is_at_chunk = is_chunked
        if length is not None and not is_chunked and not is_bodyless and self._is_kept:
            self._heads.remember(self._first, self._head, self._length)

    def on_chunk_header(self) -> None:
        self._is_at_chunk = False

    def on_chunk_complete(self) -> None:
        self._is_at_chunk = self._is_chunked and not self._is_ended

    def on_body(self, data: bytes) -> None:
        if not self._is_ended:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if not self._is_interim:
            self._is_ended = True

    # What follows from it.

    def _begin(self, data: bytes) -> None:
        """An answer that has to be parsed."""
        self._parser = httptools.HttpResponseParser(self)
        self._first = data
        self._length = None
        self._is_chunked = self._is_at_chunk = False
        self._lines = []
        self._special = {}
        self._head = None
        self._is_head_new = False
        self._is_interim = False
        self._is_ended = False
        self._is_close_delimited = False
        self._is_kept = False
        self._pieces = []
        self._head_bytes = 0
        self._bare_bytes = 0

    @property
    def _limit_s(self) -> float:
        """How long the next bytes of the body may take."""
        return self._idle_s if self._is_begun else self._first_byte_s

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
            exchange.on_head(self._head, self._length)
        elif not pieces and not self._is_ended:
            return
        if self._exchange is None:  # it left
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._first = b""
        if self._is_ended:
            self._exchange = None
            self._parser = None
            self._pool.put_back(self, self._is_kept)
        exchange.on_body(data, self._is_ended)

    def _lose(self, loss: Loss) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        if exchange is not None:
            exchange.on_lost(loss)

    def _expire(self) -> None:
        if self._exchange is None:
            self.close()
        elif self._is_begun:
            why = f"sent nothing for {self._limit_s:g} s in the middle of its answer"
            self._lose(Loss("timed_out", why, "gateway.stall"))
        else:
            self._lose(Loss("timed_out", f"did not begin to answer within {self._limit_s:g} s", "gateway.first_byte"))


class _Unreadable(Exception):
    """Raised in the parser's callbacks: what it lets through and can't be relayed."""


def _are_chunks(data: bytes) -> bool:
    """`data` is one or more whole chunks of whole lines, none of them the last, as nearly all engines write events."""
    at, end = 0, len(data)
    while at < end:
        line_end = data.find(b"\r\n", at, at + _SIZE_BYTES + 2)
        size = _sizes.get(data[at:line_end]) or _size(data[at:line_end])
        at = line_end + 4 + size
        if not size or at > end or data[at - 3 : at] != b"\n\r\n":
            return False
    return True


def _size(line: bytes) -> int:
    """What a chunk's first line says; 0 where it is the last chunk's, or says more, or is cut."""
    if _SIZE(line) is None:
        return 0
    if len(_sizes) >= _SIZES:
        _sizes.clear()
    size = _sizes[line] = int(line, 16)
    return size


_SIZE_BYTES: Final = 7
_SIZES: Final = 4096  # that are remembered: events are much alike
_SIZE: Final = re.compile(rb"[1-9a-fA-F][0-9a-fA-F]{0,6}").fullmatch
_sizes: Final[dict[bytes, int]] = {}

_READ: Final = frozenset(
    b"connection content-encoding content-length content-type retry-after transfer-encoding x-request-id".split()
)


class Pool:
    """Kept connections to engines, the last used first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: GatewayOptions) -> None:
        self.loop = loop
        self.options = options
        self.heads: Heads[EngineHead] = Heads(ENGINE_HEADS, HEAD_BYTES)
        self._origins: dict[tuple[str, int, bool], Origin] = {}

    def origin(self, host: str, port: int, is_tls: bool) -> Origin:
        """Where connections lead; the same one each time."""
        key = (host, port, is_tls)
        origin = self._origins.get(key)
        if origin is None:
            origin = self._origins[key] = Origin(*key)
        return origin

    async def connect(self, origin: Origin) -> Upstream | Loss:
        """A new connection."""
        limit_s = self.options.connect_timeout_s
        upstream = Upstream(self, origin)
        protocol = cast(asyncio.Protocol, upstream)
        try:
            async with asyncio.timeout(limit_s):
                if not origin.port:
                    await self.loop.create_unix_connection(lambda: protocol, origin.host)
                else:
                    tls = self._tls if origin.is_tls else None
                    await self.loop.create_connection(lambda: protocol, origin.host, origin.port, ssl=tls)
                return upstream
        except TimeoutError:
            return Loss("refused", f"did not take a connection within {limit_s:g} s", "gateway.connect")
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
        origin = upstream.origin
        if is_reusable and origin.is_allowed and len(origin.idle) < UPSTREAM_IDLE and upstream.rest():
            origin.idle.append(upstream)
        else:
            upstream.close()

    def forget(self, upstream: Upstream) -> None:
        """A connection that is lost."""
        if upstream in upstream.origin.idle:
            upstream.origin.idle.remove(upstream)

    def allow(self, origins: Set[Origin]) -> None:
        """Keep connections to `origins` only."""
        for key, origin in list(self._origins.items()):
            origin.is_allowed = origin in origins
            if not origin.is_allowed:
                del self._origins[key]
                for upstream in list(origin.idle):
                    upstream.close()
                origin.idle.clear()

    def close(self) -> None:
        """Close what is kept."""
        self.allow(set())

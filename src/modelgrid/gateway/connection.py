"""A caller's connection: reads one request after the other, within limits, and writes their answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NoReturn, Protocol, cast

import httptools
import msgspec

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.deadline import Deadline
from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.options import LINGER_S, PARSED_BYTES, PIPELINED_BYTES, GatewayOptions
from modelgrid.gateway.request import NOT_FORWARDED, READ, Line, Request, forwarded, note, split_target


class Job(Protocol):
    """A request that is being answered."""

    def leave(self) -> None: ...
    def stop(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Service(Protocol):
    """What answers requests, and counts what connections hold."""

    options: GatewayOptions
    loop: asyncio.AbstractEventLoop

    @property
    def is_draining(self) -> bool: ...

    def opened(self, connection: ClientConnection) -> bool:
        """A connection came; False where there are too many."""
        ...

    def closed(self, connection: ClientConnection) -> None: ...

    def hold(self, count: int) -> bool:
        """`count` more bytes of bodies are held (fewer, where negative); False where that is too much."""
        ...

    def request_id(self) -> str: ...

    def check(self, request: Request) -> Found | Answer:
        """What a request's head asks for, or why it won't be answered; its body is not there yet."""
        ...

    def serve(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        """Answer `request`, at once (None) or by a job."""
        ...


class Ready(msgspec.Struct, frozen=True):
    """A request whose turn will come."""

    request: Request
    found: Found | Answer
    must_close: bool = False  # what follows it on the connection can't be read


class ClientConnection(asyncio.Protocol):
    """One caller. While a job is at work, what else arrives is held unparsed, so answers keep their order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._options = service.options
        self._deadline = Deadline(service.loop, self._expire)
        self._transport: asyncio.Transport | None = None
        self._ready: deque[Ready] = deque()
        self._held = bytearray()
        self._request: Request | None = None  # whose turn it is
        self._job: Job | None = None
        self._is_serving = False
        self._is_closing = False
        self._is_deaf = False  # nothing more is read
        self._is_lingering = False
        self._owes_continue = False
        self._refusal: Answer | None = None  # why reading was stopped
        self._is_paused = False
        self._begin()

    # The request that is being received.
    _target: bytes
    _head_bytes: int
    _lines: list[Line]
    _read: dict[bytes, bytes]
    _head: Request | None
    _found: Found | Answer | None
    _pieces: list[bytes]
    _body_bytes: int

    # What the worker calls.

    def drain(self) -> None:
        """Finish what is there, take nothing new."""
        if self._request is None and not self._ready and not self._is_receiving:
            self.close()

    def cut(self) -> None:
        """The grace time is over."""
        if self._job is not None:
            self._job.stop()
        self.close()

    # What a reply calls: see `Caller`.

    @property
    def request_id(self) -> str:
        """See `Caller`."""
        assert self._request is not None
        return self._request.id

    @property
    def is_http10(self) -> bool:
        """See `Caller`."""
        assert self._request is not None
        return self._request.is_http10

    def connection_line(self, *, must_close: bool = False) -> bytes:
        """See `Caller`."""
        assert self._request is not None
        if must_close or self._is_closing or not self._request.keep_alive or self._service.is_draining:
            self._is_closing = True
            return b"connection: close\r\n"
        return b"connection: keep-alive\r\n" if self._request.is_http10 else b""

    def write(self, data: bytes) -> None:
        """See `Caller`."""
        if self._transport is not None:
            self._transport.write(data)

    def answer(self, answer: Answer) -> None:
        """See `Caller`."""
        assert self._request is not None
        line = self.connection_line()
        head_only = self._request.method == "HEAD"
        self.write(answers.render(answer, request_id=self._request.id, connection=line, head_only=head_only))
        self.finish()

    def finish(self) -> None:
        """See `Caller`."""
        self._let_go_of_body()
        self._request = None
        self._job = None
        if self._refusal is not None and not self._ready:
            self._linger()
        elif self._is_closing or self._service.is_draining:
            self.close()
        elif not self._is_serving:
            self._go_on()

    def close(self) -> None:
        """See `Caller`."""
        self._is_closing = self._is_deaf = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """See `Caller`."""
        self._is_closing = self._is_deaf = True
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._deadline.move(self._options.keep_alive_s)
        if not self._service.opened(self):
            self._refuse(answers.too_many_connections(self._options.connections))

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._request is not None or self._is_paused:
            self._held += data
        else:
            if self._held or len(data) > self._parsed_bytes():
                self._held += data
            else:
                self._feed(data)
            self._go_on()
        if len(self._held) > PIPELINED_BYTES and not self._is_deaf:
            self.abort()  # to leave it in the kernel would hide that its caller leaves, which shows behind it only

    def pause_writing(self) -> None:
        self._is_paused = True
        self._is_timed = False
        self._deadline.move(self._options.idle_timeout_s)
        if self._job is not None:
            self._job.pause()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._set_deadline()
        if self._job is not None:
            self._job.resume()
        elif not self._is_serving:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._transport = None
        self._is_closing = self._is_deaf = True
        self._deadline.close()
        self._service.hold(-self._body_bytes - sum(len(ready.request.body) for ready in self._ready))
        self._let_go_of_body()
        self._ready.clear()
        self._service.closed(self)
        job, self._job = self._job, None
        self._request = None
        if job is not None:
            job.leave()

    # Reading.

    def _begin(self) -> None:
        """Expect a request."""
        self._parser = httptools.HttpRequestParser(self)
        self._is_receiving = False  # a request has begun and not ended
        self._is_timed = False  # the deadline is that of what is being received
        self._idle_bytes = 0  # received since the request last came forward
        self._start_request()

    def _start_request(self) -> None:
        self._target = b""
        self._head_bytes = 0
        self._lines = []
        self._read = {}
        self._head = None
        self._found = None
        self._pieces = []
        self._body_bytes = 0

    def _feed(self, data: bytes) -> None:
        self._idle_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self._refusal is not None:
                self._put_last(self._refusal)
            elif isinstance(error, httptools.HttpParserCallbackError):
                raise
            elif "Connection: close" not in str(error):  # what follows the last request isn't one
                self._put_last(answers.bad_request(f"cannot read the request: {error}"))
            self._is_deaf = True
        else:
            if self._is_receiving and self._idle_bytes > self._options.header_bytes:
                self._put_last(answers.head_too_large(self._options.header_bytes))

    def _take_held(self) -> None:
        count = self._parsed_bytes()
        with memoryview(self._held) as held:
            data = bytes(held[:count])
        del self._held[:count]
        self._feed(data)

    def _parsed_bytes(self) -> int:
        """How much to give the parser, which can't be stopped between two requests: the rest of a body of known
        size, or little."""
        if self._is_receiving and self._head is not None and b"content-length" in self._read:
            return max(PARSED_BYTES, int(self._read[b"content-length"]) - self._body_bytes)
        return PARSED_BYTES

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read on as if no upgrade had been offered: callers offer h2c unasked, and their parser stops there."""
        head = self._head
        self._ready.pop()
        if head is None or head.method == "CONNECT":
            self._put_last(answers.wrong_method("CONNECT", "/", ("GET", "POST")))
            return
        lines = [b"%b %b HTTP/1.1\r\n" % (head.method.encode(), self._target)]
        lines += [b"%b: %b\r\n" % item for item in self._read.items() if item[0] != b"connection"]
        lines += [line for name, line in self._lines if name not in READ]
        self._begin()
        self._feed(b"".join([*lines, b"\r\n", rest]))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._start_request()
        self._is_receiving = True
        self._is_timed = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if self._head is not None:  # trailers end here
            return
        lower = name.lower()
        if lower in READ:
            note(self._read, lower, value)
        if lower not in NOT_FORWARDED:
            self._lines.append((lower, b"%b: %b\r\n" % (name, value)))

    def on_headers_complete(self) -> None:
        self._is_timed = False
        read = self._read
        path, query = split_target(self._target)
        request_id = read.get(b"x-request-id", b"").decode("latin-1")
        forward = forwarded(self._lines, read.get(b"connection"))
        if not request_id:
            request_id = self._service.request_id()
            forward += b"x-request-id: %b\r\n" % request_id.encode()
        is_http10 = self._parser.get_http_version() == "1.0"
        self._head = Request(
            id=request_id,
            method=self._parser.get_method().decode(),
            path=path,
            query=query,
            is_http10=is_http10,
            keep_alive=self._parser.should_keep_alive(),
            read=read,
            forward=forward,
        )
        self._found = self._check_head(self._head)
        if isinstance(self._found, Answer) and _has_body(read):
            self._stop(self._found)  # its body isn't worth reading
        if not is_http10 and read.get(b"expect", b"").lower() == b"100-continue":
            self._owes_continue = True

    def on_body(self, data: bytes) -> None:
        self._is_timed = False
        self._idle_bytes = 0
        self._owes_continue = False
        self._body_bytes += len(data)
        self._pieces.append(data)
        if not self._service.hold(len(data)):
            self._stop(answers.too_many_bodies(self._options.bodies_bytes))
        if self._body_bytes > self._options.body_bytes:
            self._stop(answers.body_too_large(self._options.body_bytes))

    def on_message_complete(self) -> None:
        assert self._head is not None
        assert self._found is not None
        self._idle_bytes = 0
        self._is_receiving = self._owes_continue = False
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        request = msgspec.structs.replace(self._head, body=body) if body else self._head
        self._pieces = []
        self._body_bytes = 0  # the request holds them now
        self._ready.append(Ready(request, self._found))

    def _check_head(self, head: Request) -> Found | Answer:
        found = self._service.check(head)
        length = head.read.get(b"content-length")
        if isinstance(found, Found) and length is not None and int(length) > self._options.body_bytes:
            return answers.body_too_large(self._options.body_bytes)
        return found

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._options.header_bytes:
            self._stop(answers.head_too_large(self._options.header_bytes))

    # Answering, in order.

    def _go_on(self) -> None:
        """Serve what is ready, one after the other, then wait for more."""
        self._is_serving = True  # answers that come at once return here, instead of calling deeper and deeper
        while self._request is None and not self._is_closing and not self._is_paused:
            if self._ready:
                self._serve(self._ready.popleft())
            elif self._held and not self._is_deaf:
                self._take_held()
            else:
                break
        self._is_serving = False
        if not self._is_paused:
            self._set_deadline()
        if self._owes_continue and self._request is None and not self._is_closing:
            self._owes_continue = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve(self, ready: Ready) -> None:
        self._request = ready.request
        self._is_closing = self._is_closing or ready.must_close
        if isinstance(ready.found, Answer):
            self.answer(ready.found)
            return
        job = self._service.serve(self, ready.request, ready.found)
        if self._request is ready.request:
            self._job = job

    def _set_deadline(self) -> None:
        if self._is_lingering or self._transport is None:
            return
        if self._request is not None:
            self._is_timed = False  # what was received of the next one begins its time when its turn comes
            self._deadline.stop()
        elif not self._is_receiving:
            self._deadline.move(self._options.keep_alive_s)
        elif not self._is_timed:  # else it stands: a byte now and then is not what it waits for
            self._is_timed = True
            self._deadline.move(self._options.header_timeout_s)

    def _put_last(self, answer: Answer) -> None:
        """Answer so after what is ready, and close: nothing more is read."""
        self._is_deaf = True
        self._refusal = answer
        self._service.hold(-self._body_bytes)
        self._body_bytes = 0
        self._pieces = []
        self._is_receiving = self._owes_continue = False
        head = self._head or Request(
            id=self._service.request_id(),
            method="GET",
            path="",
            query=b"",
            is_http10=False,
            keep_alive=False,
            read={},
            forward=b"",
        )
        self._ready.append(Ready(head, answer, must_close=True))

    def _refuse(self, answer: Answer) -> None:
        self._put_last(answer)
        self._go_on()

    def _stop(self, answer: Answer) -> NoReturn:
        self._refusal = answer
        raise _Stop

    def _linger(self) -> None:
        """Close once the caller has read why: a connection closed before all was received would take that away."""
        self._is_closing = self._is_lingering = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._deadline.move(LINGER_S)

    def _let_go_of_body(self) -> None:
        if self._request is not None:
            self._service.hold(-len(self._request.body))

    def _expire(self) -> None:
        if self._is_paused or self._is_lingering:
            self.abort()  # a caller who doesn't read
        elif self._is_receiving:
            part = "head" if self._head is None else "body"
            self._refuse(answers.too_slow(part, self._options.header_timeout_s))
        else:
            self.close()


class _Stop(Exception):
    """Raised in the parser's callbacks: nothing more of this connection is read."""


def _has_body(read: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in read or read.get(b"content-length", b"0") != b"0"

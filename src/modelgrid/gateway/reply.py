"""The caller's side of a relayed request: the engine's answer as it came, framed anew for this connection."""

from __future__ import annotations

from typing import Protocol

from modelgrid.gateway.answers import Answer, as_anthropic, last_event, status_line
from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.exchange import EngineHead


class Caller(Protocol):
    """Where a reply is written: the caller's connection, while this request is its turn."""

    @property
    def request_id(self) -> bytes: ...

    @property
    def is_http10(self) -> bool: ...

    def connection_line(self, *, must_close: bool = False) -> bytes:
        """The header that says what becomes of the connection after this answer; decides it as well."""
        ...

    def write(self, data: bytes) -> None: ...

    def relay_whole(self, start: bytes, body: bytes, *, has_id: bool) -> bool:
        """A whole answer that begins with `start`, up to its length; it has a request's id or gets one. False where
        more has to be said: nothing was written then."""
        ...

    def finish(self) -> None:
        """The answer is whole."""
        ...

    def answer(self, answer: Answer) -> None:
        """A whole answer of our own."""
        ...

    def close(self) -> None:
        """End the connection after what was written, in the middle of an answer."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


class EngineTrouble(Exception):
    """What the engine sent can't be turned into an answer; the text continues "the engine …"."""


class Reply(Protocol):
    """What becomes of an engine's answer."""

    @property
    def is_begun(self) -> bool:
        """A byte was written to the caller, so the request can't be sent again."""
        ...

    @property
    def sign(self) -> bytes:
        """See `Job`."""
        ...

    @property
    def takes_chunks(self) -> bool:
        """Chunks of an engine's answer can be added as they are on the wire, by `add_chunks`."""
        ...

    def whole(self, head: EngineHead, body: bytes) -> None:
        """All of it at once. Raises EngineTrouble."""
        ...

    def begin(self, head: EngineHead, length: int | None) -> None: ...

    def add_chunks(self, data: bytes) -> None: ...

    def add(self, data: bytes, ended: bool) -> None:
        """More of the body, perhaps nothing; `ended` when that is all. Raises EngineTrouble."""
        ...

    def break_off(self, kind: str, code: str, why: str) -> None:
        """What `is_begun` won't be whole; `kind` and `code` are those of an error, `why` says who ended it."""
        ...

    def refuse(self, answer: Answer) -> None:
        """Nothing is begun: answer so instead."""
        ...

    def abort(self) -> None:
        """End the caller's connection at once."""
        ...


class PassThrough:
    """Every byte as it came. Head, body and end that come together are one write."""

    is_begun = False
    takes_chunks = False
    _head = b""
    _is_chunked = False
    _is_events = False

    def __init__(self, caller: Caller, found: Found, *, head_only: bool = False) -> None:
        self._caller = caller
        self._found = found
        self._head_only = head_only

    @property
    def caller(self) -> Caller:
        """Where it is written."""
        return self._caller

    @property
    def sign(self) -> bytes:
        """See `Job`. Between two chunks it is a zero, which begins the next one's size as well as the size does."""
        if self._caller.is_http10:
            return b""
        if not self.is_begun:
            return b"HTTP/1.1 100 Continue\r\n\r\n"
        return b"0" if self._is_chunked and not self._head_only else b""

    def whole(self, head: EngineHead, body: bytes) -> None:
        """One write."""
        self.is_begun = True
        if not self._caller.relay_whole(head.whole, body, has_id=head.has_id):
            self.begin(head, len(body))
            self.add(body, True)

    def begin(self, head: EngineHead, length: int | None) -> None:
        """Prepare the head; it is written with what comes first."""
        caller = self._caller
        lines = [status_line(head.status), head.lines]
        must_close = False
        self._is_chunked = length is None and not caller.is_http10  # anew: an earlier head may be unsent
        if head.status in (204, 304):
            pass
        elif length is not None:
            lines.append(b"content-length: %d\r\n" % length)
        elif caller.is_http10:
            must_close = True
        else:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not head.has_id:
            lines.append(b"x-request-id: %b\r\n" % caller.request_id)
        lines += [caller.connection_line(must_close=must_close), b"\r\n"]
        self._head = b"".join(lines)
        self._is_events = self._found.endpoint.streams and head.is_events and length is None
        self.takes_chunks = False

    def add(self, data: bytes, ended: bool) -> None:
        """Write what there is, at once; but a head alone waits, for until more has come another replica may answer."""
        if not data and not ended:
            return
        parts = [self._head]
        self._head = b""
        self.is_begun = True
        if self._head_only:
            data = b""
            self._is_chunked = False
        if data:
            parts.append(self._framed(data))
            self.takes_chunks = self._is_chunked and data[-1:] == b"\n"
        if ended and self._is_chunked:
            parts.append(b"0\r\n\r\n")
        self._caller.write(b"".join(parts))
        if ended:
            self._caller.finish()

    def add_chunks(self, data: bytes) -> None:
        """The engine's chunks are the caller's."""
        self._caller.write(data)

    def break_off(self, kind: str, code: str, why: str) -> None:
        """A stream of events gets a last one that says so; anything else just isn't whole."""
        if not self._is_events:
            self._caller.abort()
            return
        # The last event may not have ended; empty lines say nothing.
        event = b"\n\n" + last_event(kind, code, why, is_anthropic=self._found.is_anthropic)
        self._caller.write(self._framed(event))
        self._caller.close()

    def abort(self) -> None:
        """See `Reply`."""
        self._caller.abort()

    def refuse(self, answer: Answer) -> None:
        """JSON, as all errors are."""
        self._caller.answer(as_anthropic(answer) if self._found.is_anthropic else answer)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data

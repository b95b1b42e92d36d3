"""The caller's side of a relayed request: the engine's answer as it came, framed anew for this connection."""

from __future__ import annotations

from typing import Protocol

from modelgrid.gateway.answers import Answer, last_event, status_line
from modelgrid.gateway.upstream import EngineHead


class Caller(Protocol):
    """Where a reply is written: the caller's connection, while this request is its turn."""

    @property
    def request_id(self) -> str: ...

    @property
    def is_http10(self) -> bool: ...

    def connection_line(self, *, must_close: bool = False) -> bytes:
        """The header that says what becomes of the connection after this answer; decides it as well."""
        ...

    def write(self, data: bytes) -> None: ...

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

    def begin(self, head: EngineHead) -> None: ...

    def add(self, data: bytes, ended: bool) -> None:
        """More of the body, perhaps nothing; `ended` when that is all. Raises EngineTrouble."""
        ...

    def break_off(self, kind: str, code: str, why: str) -> None:
        """What `is_begun` won't be whole; `kind` and `code` are those of an error, `why` says who ended it."""
        ...

    def refuse(self, answer: Answer) -> None:
        """Nothing is begun: answer so instead."""
        ...


class PassThrough:
    """Every byte as it came. Head, body and end that come together are one write."""

    def __init__(self, caller: Caller, *, may_stream: bool) -> None:
        self.is_begun = False
        self._caller = caller
        self._may_stream = may_stream
        self._head = b""
        self._is_chunked = False
        self._is_events = False
        self._tail = b"\n\n"  # the last bytes of a stream of events

    def begin(self, head: EngineHead) -> None:
        """Prepare the head; it is written with what comes first."""
        caller = self._caller
        lines = [status_line(head.status), head.lines]
        must_close = False
        self._is_chunked = head.length is None and not caller.is_http10  # anew: an earlier head may be unsent
        if head.status in (204, 304):
            pass
        elif head.length is not None:
            lines.append(b"content-length: %d\r\n" % head.length)
        elif caller.is_http10:
            must_close = True
        else:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not head.has_id:
            lines.append(b"x-request-id: %b\r\n" % caller.request_id.encode("latin-1"))
        lines += [caller.connection_line(must_close=must_close), b"\r\n"]
        self._head = b"".join(lines)
        self._is_events = self._may_stream and head.is_events and head.length is None

    def add(self, data: bytes, ended: bool) -> None:
        """Write what there is, at once; but a head alone waits, for until more has come another replica may answer."""
        if not data and not ended:
            return
        parts = [self._head]
        self._head = b""
        self.is_begun = True
        if data:
            parts.append(self._framed(data))
            if self._is_events:
                self._tail = (self._tail + data)[-4:]
        if ended and self._is_chunked:
            parts.append(b"0\r\n\r\n")
        self._caller.write(b"".join(parts))
        if ended:
            self._caller.finish()

    def break_off(self, kind: str, code: str, why: str) -> None:
        """A stream of events gets a last one that says so; anything else just isn't whole."""
        if not self._is_events:
            self._caller.abort()
            return
        is_between_events = self._tail.endswith((b"\n\n", b"\r\n\r\n"))
        event = last_event(kind, code, why)
        self._caller.write(self._framed(event if is_between_events else b"\n\n" + event))
        self._caller.close()

    def refuse(self, answer: Answer) -> None:
        """JSON, as all errors are."""
        self._caller.answer(answer)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data

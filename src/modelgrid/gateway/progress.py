"""Signs for who waits for a stream: its head at once, comments until the engine begins, then the stream as it comes.

Comments (lines that begin with a colon) are no events, so clients overlook them; proxies on the way see that something
comes. The answer's status is spent on that: what goes wrong afterwards is told by an event in the stream.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.body import BodyError, read
from modelgrid.gateway.endpoints import Act, Found
from modelgrid.gateway.exchange import EngineHead
from modelgrid.gateway.options import SIGN_CHARACTERS, WHOLE_BYTES
from modelgrid.gateway.plain import read_error
from modelgrid.gateway.reply import Caller, EngineTrouble, PassThrough, Reply
from modelgrid.gateway.request import Head
from modelgrid.spec.operations import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from modelgrid.spec.units import format_bytes

_SHOWN: Final = frozenset((CHAT, COMPLETIONS, RESPONSES, MESSAGES))
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\n"  # nginx, and who follows it, would hold comments back
    b"transfer-encoding: chunked\r\n"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_ENCODING: Final = b"accept-encoding:"


def offer_progress(reply: Reply, found: Found, head: Head, body: bytes, *, by_default: bool) -> Progress | None:
    """What takes a reply's place where a request gets signs while it waits: a stream that can have them, whose caller
    asks for them, or whose model has them by default."""
    wishes = head.wishes
    is_asked_for = by_default if wishes is None or wishes.progress is None else wishes.progress
    if not is_asked_for or not isinstance(reply, PassThrough) or head.is_http10:
        return None
    if found.act is not Act.RELAY or found.operation not in _SHOWN:
        return None
    try:
        return Progress(reply, reply.caller, found) if read(body).is_stream else None
    except BodyError:
        return None


def without_encoding(lines: bytes) -> bytes:
    """The headers that an engine gets, such that its stream can go on behind what was written plainly."""
    if _ENCODING not in lines.lower():
        return lines
    return b"".join([line for line in lines.splitlines(keepends=True) if not line.lower().startswith(_ENCODING)])


def comment(model: str, state: str, waited_s: float, starts_s: float | None = None, why: str = "") -> bytes:
    """How a request stands, in one line of bounded length; `starts_s` is what a start took before."""
    starts = "" if starts_s is None else f" starts={starts_s:.0f}s"
    said = f" why={why}" if why else ""
    line = f": modelgrid waiting model={model} state={state} waited={waited_s:.1f}s{starts}{said}"
    line = _CONTROL.sub(" ", line)
    limit = SIGN_CHARACTERS + len(model)
    return (line if len(line) <= limit else f"{line[: limit - 1]}…").encode(errors="replace") + b"\n\n"


class Progress:
    """A `Reply` that may begin before the engine does. Until then it is a `PassThrough`, and stays so where nobody
    calls `beat`. While only signs were written, nothing has begun: the request may be sent again."""

    def __init__(self, plain: PassThrough, caller: Caller, found: Found) -> None:
        self._plain = plain
        self._caller = caller
        self._found = found
        self._status = 0
        self._is_events = False
        self._flows = False  # something of the engine's stream was written
        self._collected = b""  # of an answer that is none
        self._takes_chunks = False
        self.is_shown = False  # the head was written

    @property
    def is_begun(self) -> bool:
        """See `Reply`."""
        return self._flows if self.is_shown else self._plain.is_begun

    @property
    def sign(self) -> bytes:
        """See `Job`."""
        return b"0" if self.is_shown else self._plain.sign

    @property
    def takes_chunks(self) -> bool:
        """See `Reply`."""
        return self._takes_chunks if self.is_shown else self._plain.takes_chunks

    def beat(self, comment: bytes) -> None:
        """Write a sign, behind the head if it is the first. Not once the answer has begun."""
        data = _framed(comment)
        if not self.is_shown:
            self.is_shown = True
            caller = self._caller
            data = b"%bx-request-id: %b\r\n%b\r\n%b" % (_HEAD, caller.request_id, caller.connection_line(), data)
        self._caller.write(data)

    def whole(self, head: EngineHead, body: bytes) -> None:
        """See `Reply`."""
        if self.is_shown:
            self.begin(head, len(body))
            self.add(body, True)
        else:
            self._plain.whole(head, body)

    def begin(self, head: EngineHead, length: int | None) -> None:
        """See `Reply`."""
        if not self.is_shown:
            self._plain.begin(head, length)
            return
        self._status = head.status
        self._is_events = head.status == 200 and head.is_events
        self._collected = b""

    def add(self, data: bytes, ended: bool) -> None:
        """See `Reply`."""
        if not self.is_shown:
            self._plain.add(data, ended)
        elif self._is_events:
            self._relay(data, ended)
        else:
            self._collect(data, ended)

    def add_chunks(self, data: bytes) -> None:
        """See `Reply`."""
        self._caller.write(data)

    def break_off(self, kind: str, code: str, why: str) -> None:
        """See `Reply`."""
        if self.is_shown:
            self._end_by(b"\n\n" + answers.last_event(kind, code, why, is_anthropic=self._found.is_anthropic))
        else:
            self._plain.break_off(kind, code, why)

    def refuse(self, answer: Answer) -> None:
        """An error is an event where the status is spent."""
        if self.is_shown:
            self._end_by(answers.as_event(answer, is_anthropic=self._found.is_anthropic))
        else:
            self._plain.refuse(answer)

    def abort(self) -> None:
        """See `Reply`."""
        self._caller.abort()

    def _relay(self, data: bytes, ended: bool) -> None:
        framed = _framed(data) if data else b""
        if data:
            self._flows = True
            self._takes_chunks = data[-1:] == b"\n"
        if ended:
            framed += b"0\r\n\r\n"
        if framed:
            self._caller.write(framed)
        if ended:
            self._flows = True
            self._caller.finish()

    def _collect(self, data: bytes, ended: bool) -> None:
        """An error, or no stream."""
        if self._status < 300:
            raise EngineTrouble("answered with something else than a stream of events, which was asked for")
        self._collected += data
        if len(self._collected) > WHOLE_BYTES:
            raise EngineTrouble(f"sent an error larger than {format_bytes(WHOLE_BYTES)}")
        if ended:
            event = _errors_event(self._status, self._collected, is_anthropic=self._found.is_anthropic)
            self._end_by(event)

    def _end_by(self, event: bytes) -> None:
        """As any stream that isn't whole: its last event says why, and the connection ends."""
        self._flows = True
        self._caller.write(_framed(event))
        self._caller.close()


def _errors_event(status: int, body: bytes, *, is_anthropic: bool) -> bytes:
    """An engine's error as an event: in its own words and shape where clients look for an error there."""
    try:
        error = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        return answers.event(msgspec.json.format(body, indent=-1), is_anthropic=is_anthropic)
    answer = answers.error(status, answers.ENGINE, f"the engine answered {status}: {read_error(body)}")
    return answers.as_event(answer, is_anthropic=is_anthropic)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

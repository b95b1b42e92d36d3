"""Plain text in, plain text out: a chat for those who have no JSON at hand."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from modelgrid.gateway.answers import ENGINE, Answer, as_text, error
from modelgrid.gateway.body import BodyError
from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.exchange import EngineHead
from modelgrid.gateway.options import EVENT_BYTES, WHOLE_BYTES
from modelgrid.gateway.reply import Caller, EngineTrouble, PassThrough
from modelgrid.spec.units import format_bytes

_TEXT_HEAD: Final = EngineHead(
    200, b"content-type: text/plain; charset=utf-8\r\ncache-control: no-cache\r\n", type=b"text/plain"
)


def chat_body(model: str, text: bytes) -> bytes:
    """The streaming chat completion that `text` asks for. Raises BodyError."""
    try:
        content = text.decode()
    except UnicodeDecodeError as found:
        raise BodyError(f"cannot read the prompt: byte {found.start} is not UTF-8 (send text in UTF-8)") from None
    if not content.strip():
        raise BodyError("cannot answer an empty prompt (send the text as the request's body)")
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": content}], "stream": True})


def engine_lines(request_id: bytes) -> bytes:
    """The headers that the engine gets instead of the caller's, which speak of text."""
    return b"content-type: application/json\r\naccept: text/event-stream\r\nx-request-id: %b\r\n" % request_id


class PlainReply:
    """A `Reply` that writes the text of an engine's stream, or the text of its error."""

    takes_chunks = False

    def __init__(self, caller: Caller, found: Found) -> None:
        self._caller = caller
        self._model = found.model
        self._text = PassThrough(caller, found)
        self._events: EventReader | None = None
        self._status = 0
        self._collected = bytearray()

    @property
    def is_begun(self) -> bool:
        """See `Reply`."""
        return self._text.is_begun

    @property
    def sign(self) -> bytes:
        """See `Reply`."""
        return self._text.sign

    def whole(self, head: EngineHead, body: bytes) -> None:
        """See `Reply`."""
        self.begin(head, len(body))
        self.add(body, True)

    def add_chunks(self, data: bytes) -> None:
        """Chunks are never taken."""
        raise NotImplementedError

    def begin(self, head: EngineHead, length: int | None) -> None:  # noqa: ARG002  what is written has another
        """Text begins at once where events do; anything else is read to its end first."""
        self._status = head.status
        self._collected.clear()
        self._events = None
        if head.status == 200 and head.is_events:
            self._events = EventReader()
            self._text.begin(_TEXT_HEAD, None)

    def add(self, data: bytes, ended: bool) -> None:
        """See `Reply`."""
        if self._events is None:
            self._collect(data, ended)
            return
        text = "".join(read_delta(event) for event in self._events.feed(data))
        if text or ended:
            self._text.add(text.encode(), ended)

    def break_off(self, kind: str, code: str, why: str) -> None:
        """See `Reply`."""
        self._text.break_off(kind, code, why)

    def abort(self) -> None:
        """See `Reply`."""
        self._caller.abort()

    def refuse(self, answer: Answer) -> None:
        """Errors are text, too."""
        self._caller.answer(as_text(answer))

    def _collect(self, data: bytes, ended: bool) -> None:
        self._collected += data
        if len(self._collected) > WHOLE_BYTES:
            raise EngineTrouble(f"sent an answer larger than {format_bytes(WHOLE_BYTES)} that is no stream")
        if not ended:
            return
        body = bytes(self._collected)
        if self._status == 200 and (text := read_message(body)) is not None:
            self._caller.answer(Answer(status=200, body=text.encode(), type="text/plain; charset=utf-8"))
            return
        status = self._status if self._status >= 400 else 502
        self.refuse(error(status, ENGINE, f"the engine of {self._model} answered {self._status}: {read_error(body)}"))


class EventReader:
    """Server-sent events, however the bytes are cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that `chunk` completes."""
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        if len(self._rest) + sum(map(len, self._data)) > EVENT_BYTES:
            raise EngineTrouble(f"sent an event larger than {EVENT_BYTES} bytes")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


# A return at the very end isn't an end of line yet: the newline that belongs to it may come with the next chunk.
_LINE_END: Final = re.compile(rb"\r\n|\n|\r(?=[^\n])", re.DOTALL)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Message = msgspec.field(default_factory=_Message)
    message: _Message = msgspec.field(default_factory=_Message)


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    error: object = None


_completion: Final = msgspec.json.Decoder(_Completion)


def read_delta(event: bytes) -> str:
    """The text that one event adds. Raises EngineTrouble where it is an error, or no JSON."""
    if event.strip() == b"[DONE]":
        return ""
    try:
        completion = _completion.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as found:
        raise EngineTrouble(f"sent an event that is no JSON: {found}") from None
    if completion.error is not None:
        raise EngineTrouble(f"reports an error: {read_error(event)}")
    return "".join(choice.delta.content or "" for choice in completion.choices)


def read_message(body: bytes) -> str | None:
    """The text of a completion that came whole, or None where there is none."""
    try:
        choices = _completion.decode(body).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return "".join(choice.message.content or "" for choice in choices) if choices else None


def read_error(body: bytes) -> str:
    """What an engine's error says, in whatever shape."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace").strip()
    while isinstance(value, dict):
        value = value.get("error") or value.get("message") or value.get("detail") or str(value)
    return str(value)

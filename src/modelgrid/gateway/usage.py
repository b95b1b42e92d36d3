"""What an answer says of tokens: read where it stands, and nothing else of the answer is looked at."""

from __future__ import annotations

import re
from typing import Final

import msgspec

EVENT_LIMIT_BYTES: Final = 1 << 20  # what a longer one says isn't read


class Usage(msgspec.Struct, gc=False):
    """Tokens. `cached` are part of `input`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    is_estimated: bool = False  # counted here, since the engine didn't tell


def read_usage(body: bytes) -> Usage | None:
    """What a whole JSON answer says; None if it says nothing of tokens."""
    at = body.rfind(b'"usage"')
    if at < 0:
        return None
    # A string can't hold that text but at its end. If what follows is the rest of an object, then it is a member of
    # the answer itself: one of an inner object would leave a bracket too many.
    try:
        found = _whole(b"{" + body[at:]).usage
    except msgspec.DecodeError:
        found = _closely(body)
    return None if found is None else found.in_all()


def _closely(body: bytes) -> _Tokens | None:
    try:
        return _whole(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class UsageOfAnswer:
    """The same for an answer that comes in parts: what it says stands near its end."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def add(self, data: bytes) -> None:
        """The next bytes of the answer, with or without the frames of chunked coding."""
        self._tail = data[-_TAIL_BYTES:] if len(data) >= _TAIL_BYTES else (self._tail + data)[-_TAIL_BYTES:]

    @property
    def usage(self) -> Usage | None:
        """What the answer said."""
        return read_usage(self._tail) or read_usage(_FRAME.sub(b"", self._tail))


class UsageOfStream:
    """The same for a stream of events. Holds an event while it isn't complete, and the two that told something."""

    __slots__ = ("_first", "_last", "_partial", "events")

    def __init__(self) -> None:
        self.events = 0
        self._partial = b""
        self._first = b""
        self._last = b""

    def add(self, data: bytes) -> None:
        """The next bytes of the stream, with or without the frames of chunked coding."""
        self.events += 1 if len(data) < _LARGER_THAN_AN_EVENT else data.count(b"data:")
        if self._partial or not data.endswith(_ENDS):
            data = self._complete(data)
        at = data.rfind(b'"usage"')
        if at >= 0 and data[at + 8] != 110:  # the n of null, which stands in each event where one was asked for
            self._keep(data, at)

    @property
    def usage(self) -> Usage:
        """What the stream said so far; an estimate if it said nothing: most engines send each token in an event."""
        if (at := self._partial.rfind(b'"usage"')) >= 0:  # the last event's end is often left out
            self._keep(self._partial + b"\n", at)
        first, last = _of_event(self._first), _of_event(self._last)
        if first is None or last is None:
            return first or last or Usage(0, self.events, 0, True)
        return Usage(max(first.input, last.input), max(first.output, last.output), max(first.cached, last.cached))

    def _complete(self, data: bytes) -> bytes:
        """The events that are complete now. A frame may stand within one, if so at the end of a read at times."""
        data = self._partial + data
        if b"\r" in data:
            data = _FRAME.sub(b"", data)
        end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _ENDS)
        self._partial = data[end:] if len(data) - end <= EVENT_LIMIT_BYTES else b""
        return data[:end]

    def _keep(self, data: bytes, at: int) -> None:
        if b"\r" in data:
            data = _FRAME.sub(b"", data)
            at = data.rfind(b'"usage"')
        if _FULL.match(data, at):
            self._last = _line(data, at)
        if not self._first:
            at = data.find(b'"usage"')
            self._first = _line(data, at) if _FULL.match(data, at) else self._last


_TAIL_BYTES: Final = 16 << 10
_LARGER_THAN_AN_EVENT: Final = 600
_ENDS: Final = (b"\n\r\n", b"\n\n")  # of events, bare or in a frame
_FRAME: Final = re.compile(rb"\r\n[0-9a-fA-F]+(?:[ \t]*;[^\r\n]*)?\r\n")  # the end of a chunk, and the next one's size
_FULL: Final = re.compile(rb'"usage"[ \t]*:[ \t]*\{')


def _line(data: bytes, at: int) -> bytes:
    """The value of the line around `at`."""
    start = data.rfind(b"\n", 0, at) + 1
    return data[data.find(b":", start) + 1 : data.find(b"\n", at)]


def _of_event(event: bytes) -> Usage | None:
    """OpenAI's and Anthropic's events hold it; Anthropic's first and those of responses hold what holds it."""
    if not event:
        return None
    try:
        read = _event(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for holder in (read, read.message, read.response):
        if holder is not None and holder.usage is not None:
            return holder.usage.in_all()
    return None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Tokens(msgspec.Struct, gc=False):
    """As OpenAI, Anthropic and those who follow them write it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None  # Anthropic's, which are no part of its input_tokens
    cache_creation_input_tokens: int | None = None

    def in_all(self) -> Usage | None:
        """None if it counts something else: an audio's seconds."""
        prompt, output = self.prompt_tokens, self.completion_tokens or self.output_tokens or 0
        if prompt is None and self.input_tokens is None:
            if self.total_tokens is None:
                return Usage(0, output) if output else None
            prompt = self.total_tokens - output
        if prompt is not None:
            details = self.prompt_tokens_details
            return Usage(prompt, output, 0 if details is None else details.cached_tokens or 0)
        details = self.input_tokens_details
        prompt, cached = self.input_tokens or 0, self.cache_read_input_tokens or 0
        if details is not None and details.cached_tokens is not None:
            return Usage(prompt, output, details.cached_tokens)
        return Usage(prompt + cached + (self.cache_creation_input_tokens or 0), output, cached)


class _Whole(msgspec.Struct, gc=False):
    usage: _Tokens | None = None


class _Event(msgspec.Struct, gc=False):
    usage: _Tokens | None = None
    message: _Whole | None = None
    response: _Whole | None = None


_whole: Final = msgspec.json.Decoder(_Whole).decode
_event: Final = msgspec.json.Decoder(_Event).decode

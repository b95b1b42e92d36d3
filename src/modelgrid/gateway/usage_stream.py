"""What an answer says of tokens as it goes by, in parts."""

from __future__ import annotations

import re
from typing import Final

from modelgrid.gateway.usage import Usage, read_usage, usage_of_event

EVENT_LIMIT_BYTES: Final = 1 << 20  # what a longer one says isn't read


class UsageOfAnswer:
    """Of an answer in parts: what it says stands near its end."""

    __slots__ = ("_tail", "images", "size")

    def __init__(self) -> None:
        self.images = 0  # that were seen to go by: see `PicturesOfAnswer`
        self.size = 0
        self._tail = b""

    def add(self, data: bytes) -> None:
        """The next bytes of the answer, with or without the frames of chunked coding."""
        self.size += len(data)
        self._tail = data[-_TAIL_BYTES:] if len(data) >= _TAIL_BYTES else (self._tail + data)[-_TAIL_BYTES:]

    @property
    def usage(self) -> Usage | None:
        """What the answer said."""
        return read_usage(self._tail) or read_usage(_FRAME.sub(b"", self._tail))

    @property
    def tail(self) -> bytes:
        """Its last bytes: all of one that isn't long."""
        return self._tail


class UsageOfStream:
    """Of a stream of events. Holds an event while it isn't complete, and the two that told something."""

    __slots__ = ("_first", "_last", "_partial", "events", "images")

    def __init__(self) -> None:
        self.events = 0
        self.images = 0  # as above
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
        first, last = usage_of_event(self._first), usage_of_event(self._last)
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


class PicturesOfAnswer(UsageOfAnswer):
    """And of the pictures in it: bytes in base64, or addresses. Neither can hold what is looked for."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        super().__init__()
        self._seen = b""

    def add(self, data: bytes) -> None:
        """See `UsageOfAnswer`."""
        super().add(data)
        self.images += _count(_PICTURE, self._seen, data)
        self._seen = (self._seen + data)[-_MARK_BYTES:]


class PicturesOfStream(UsageOfStream):
    """And of its pictures that are complete: the ones before show how far it is."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        super().__init__()
        self._seen = b""

    def add(self, data: bytes) -> None:
        """See `UsageOfStream`."""
        super().add(data)
        self.images += _count(_COMPLETED, self._seen, data)
        self._seen = (self._seen + data)[-_MARK_BYTES:]


def _count(mark: re.Pattern[bytes], seen: bytes, data: bytes) -> int:
    """Marks that end in `data`; they may have begun in what was `seen` before it."""
    return sum(found.end() > len(seen) for found in mark.finditer(seen + data))


_PICTURE: Final = re.compile(rb'"(?:b64_json|url)"[ \t]*:[ \t]*"')
_COMPLETED: Final = re.compile(rb'"type"[ \t]*:[ \t]*"image_(?:generation|edit)\.completed"')
_MARK_BYTES: Final = 64  # more than any of them has

_TAIL_BYTES: Final = 16 << 10
_LARGER_THAN_AN_EVENT: Final = 600
_ENDS: Final = (b"\n\r\n", b"\n\n")  # of events, bare or in a frame
_FRAME: Final = re.compile(rb"\r\n[0-9a-fA-F]+(?:[ \t]*;[^\r\n]*)?\r\n")  # the end of a chunk, and the next one's size
_FULL: Final = re.compile(rb'"usage"[ \t]*:[ \t]*\{')


def _line(data: bytes, at: int) -> bytes:
    """The value of the line around `at`."""
    start = data.rfind(b"\n", 0, at) + 1
    return data[data.find(b":", start) + 1 : data.find(b"\n", at)]

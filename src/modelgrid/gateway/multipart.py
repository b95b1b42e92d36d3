"""An upload on its way: find the model that a form names, wherever it stands, and hold what comes before it.

RFC 7578 forms, by RFC 2046's rules, as curl, browsers and HTTP clients send them. Only delimiters, heads of parts and
the fields asked for are looked at; the rest is searched for the next delimiter and forgotten.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

FIELD_LIMIT_BYTES: Final = 64 << 10  # of a field that is read, the model; a longer one is answered with 400
HEAD_LIMIT_BYTES: Final = 16 << 10  # of a part's head; a longer one is answered with 400
PART_LIMIT: Final = 1_000  # of a form; more are answered with 400
BOUNDARY_LIMIT_BYTES: Final = 200  # of its boundary, where RFC 2046 allows 70; a longer one is answered with 400
HELD_IN_MEMORY_BYTES: Final = 1 << 20  # of an upload; more is held in a file
PIECE_BYTES: Final = 256 << 10  # of what is held, read at once


class Field(msgspec.Struct, frozen=True):
    """A field's value, and where it stands in the whole body."""

    start: int
    end: int
    value: bytes


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary that a form's content-type names; None if there is none to use."""
    boundaries = [value for name, value in _parameters(content_type) if name == b"boundary"]
    if len(boundaries) != 1 or not 0 < len(boundaries[0]) <= BOUNDARY_LIMIT_BYTES:
        return None
    return boundaries[0]


class MultipartScanner:
    """Reads a form as it comes, in parts of any size. Holds at most one head or one field that is asked for.

    A second model is an error, even after the first was found: engines go by the last one.
    """

    __slots__ = (
        "_base",
        "_end_of_line",
        "_mark",
        "_names",
        "_parts",
        "_reading",
        "_rest",
        "_state",
        "error",
        "fields",
        "is_done",
    )

    def __init__(self, boundary: bytes, names: tuple[bytes, ...] = (b"model",)) -> None:
        self.fields: dict[bytes, Field] = {}  # those of `names` that were found: the first of each
        self.is_done = False  # the closing delimiter has come; what follows is ignored
        self.error: str | None = None  # nothing is read any more
        self._names = names
        self._parts = 0
        self._mark = b"\n--" + boundary  # until the first delimiter shows how this sender ends lines
        self._end_of_line = b"\n"
        self._rest = b"\r\n"  # the first delimiter may stand at the very beginning
        self._base = -2  # where `_rest` stands in the whole body
        self._reading = b""
        # Reads from a place in data on. Gives the place to go on from, or, if it takes more data, ~place of what is
        # to be kept. A function and no method of this object, which would hold itself.
        self._state: Callable[[MultipartScanner, bytes, int], int] = MultipartScanner._skip

    @property
    def model(self) -> Field | None:
        """The first field of that name."""
        return self.fields.get(b"model")

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        if self._rest:
            data = self._rest + data
        at = 0
        while at >= 0 and not self.is_done and self.error is None:
            at = self._state(self, data, at)
        kept = len(data) if at >= 0 else ~at
        self._rest = data[kept:]
        self._base += kept

    def _skip(self, data: bytes, at: int) -> int:
        """To the end of a part that isn't asked for."""
        found, end = self._next_delimiter(data, at)
        return end if end >= 0 else ~found

    def _next_delimiter(self, data: bytes, at: int) -> tuple[int, int]:
        """Where the next one begins and its line ends; or what to keep, and -1."""
        mark = self._mark
        while (found := data.find(mark, at)) >= 0:
            after = found + len(mark)
            line = _END_OF_DELIMITER.match(data, after)
            if line is not None:
                self._begin_part(line[0])
                return found, line.end() - len(self._end_of_line)
            if _PART_OF_AN_END.fullmatch(data, after) is not None:
                return found, -1
            at = after  # a line of the content that begins as the delimiter does
        start = data.rfind(mark[:1], max(at, len(data) - len(mark) + 1))
        return (start if start >= 0 and mark.startswith(data[start:]) else len(data)), -1

    def _begin_part(self, end_of_delimiter: bytes) -> None:
        if end_of_delimiter == b"--":
            self.is_done = True
            return
        if self._parts == 0:
            self._end_of_line = b"\r\n" if end_of_delimiter.endswith(b"\r\n") else b"\n"
            self._mark = self._end_of_line + self._mark[1:]
        self._parts += 1
        if self._parts > PART_LIMIT:
            self.error = f"cannot read the form: it has more than {PART_LIMIT:,} parts"
        self._state = MultipartScanner._read_head

    def _read_head(self, data: bytes, at: int) -> int:
        """From the end of the delimiter's line, so that a head without lines ends as others do."""
        end = data.find(self._end_of_line * 2, at)
        if (end if end >= 0 else len(data)) - at > HEAD_LIMIT_BYTES:
            self.error = f"cannot read the form: a part's head is larger than {HEAD_LIMIT_BYTES >> 10} KiB"
            return at
        if end < 0:
            return ~at
        name = self._name_in(data[at:end])
        if name in self._names and name not in self.fields:
            self._state, self._reading = MultipartScanner._read_value, name
        else:
            self._state = MultipartScanner._skip
            if name == b"model" and name in self.fields:
                self.error = "cannot tell which model is asked for: the form names more than one (send one model field)"
        return end + 2 * len(self._end_of_line)

    def _name_in(self, head: bytes) -> bytes:
        names = []
        for line in _FOLD.sub(b" ", head).splitlines():
            header, _, value = line.partition(b":")
            if header.strip().lower() == b"content-disposition":
                names += [parameter for parameter in _parameters(value) if parameter[0] in (b"name", b"name*")]
        if len(names) > 1 or (names and names[0][0] == b"name*"):  # which one counts, servers don't agree on
            self.error = 'cannot read the form: a part has more than one name (send one name="…")'
        return names[0][1] if names else b""

    def _read_value(self, data: bytes, at: int) -> int:
        found, end = self._next_delimiter(data, at)
        size = found - at
        if size > FIELD_LIMIT_BYTES:
            name = self._reading.decode(errors="replace")
            self.error = f"cannot read the form: its {name} is larger than {FIELD_LIMIT_BYTES >> 10} KiB"
            return at
        if end < 0:
            return ~at
        self.fields[self._reading] = Field(self._base + at, self._base + found, data[at:found])
        return end


_END_OF_DELIMITER: Final = re.compile(rb"--|[ \t]{0,64}\r?\n")
_PART_OF_AN_END: Final = re.compile(rb"-|[ \t]{0,64}\r?")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_PARAMETER: Final = re.compile(rb';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^;]*+)')
_ESCAPED: Final = re.compile(rb'\\(["\\])')


def _parameters(value: bytes) -> list[tuple[bytes, bytes]]:
    """The parameters of a header's value, with names in small letters."""
    found = _PARAMETER.findall(value)
    return [
        (name.lower(), _ESCAPED.sub(rb"\1", text[1:-1]) if text[:1] == b'"' else text.strip()) for name, text in found
    ]


class Held:
    """Bytes kept until it is known where they go: in memory, then in a file without a name. Raises OSError where that
    can't be written. Writing and reading block: for the time of a copy, mostly."""

    __slots__ = ("_file", "_is_at_end", "size")

    def __init__(self, memory_bytes: int = HELD_IN_MEMORY_BYTES, folder: str | None = None) -> None:
        self.size = 0
        self._file = tempfile.SpooledTemporaryFile(memory_bytes, dir=folder)  # noqa: SIM115  lives until `close`
        self._is_at_end = True

    def add(self, data: bytes) -> None:
        """Keep more."""
        if not self._is_at_end:
            self._file.seek(self.size)
            self._is_at_end = True
        self._file.write(data)
        self.size += len(data)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """What is held from `start` to `end`, which is what is held now."""
        end = self.size if end is None else end
        for at in range(start, end, PIECE_BYTES):
            self._file.seek(at)
            self._is_at_end = False
            yield self._file.read(min(PIECE_BYTES, end - at))

    def with_value(self, field: Field, value: bytes) -> Iterator[bytes]:
        """What is held, with another value in the field's place: longer by the difference of the two."""
        end = self.size
        yield from self.pieces(0, field.start)
        yield value
        yield from self.pieces(field.end, end)

    def close(self) -> None:
        """Free all of it. May be called twice."""
        self._file.close()

"""Heads that were seen before aren't parsed again: callers and engines repeat theirs, but for the body's length.

A head is remembered under its own bytes with the digits of Content-Length cut out, and only when the parser found in
it exactly the length that was cut. What a head means doesn't depend on those digits otherwise, so equal bytes around
them mean an equal head. Whatever is unusual (chunks, a length spelled in another way, an upgrade, an empty line before
the head, bytes that end in the middle of a head) isn't found here, and is the parser's.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

Head = TypeVar("Head")

_NAMES: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_DIGITS: Final = 15  # of a length; more is the parser's to judge
_LARGEST_BYTES: Final = 4 << 10  # of a head that is remembered


class Heads(Generic[Head]):
    """What was made of heads, by their bytes; bounded, and begun anew when full. A limit of 0 remembers nothing."""

    def __init__(self, limit: int, head_bytes: int) -> None:
        self._limit = limit
        self._head_bytes = min(head_bytes, _LARGEST_BYTES)
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, int, int] | None:
        """The head that `data` begins with, where its body begins, and the body's length."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        at = data.find(b"\r\nContent-Length: ", 0, end)
        if at < 0:
            at = data.find(b"\r\ncontent-length: ", 0, end)
            if at < 0:
                head = self._heads.get(data[:end])
                return None if head is None else (head, end + 4, 0)
        at += 18
        stop = data.find(b"\r\n", at)
        digits = data[at:stop]
        head = self._heads.get(data[:at] + data[stop:end])
        if head is None or not digits.isdigit() or len(digits) > _DIGITS:
            return None
        return head, end + 4, int(digits)

    def remember(self, data: bytes, head: Head, length: int | None) -> None:
        """`data` began with this head when the parser stood at its start; it gave `length` as that of the body."""
        end = data.find(b"\r\n\r\n")
        if not 0 < end <= self._head_bytes or data[0] in b"\r\n":  # an empty line may look like a head's end
            return
        key = data[:end]
        for name in _NAMES:
            before, found, after = key.partition(name)
            if found:
                digits, line_end, rest = after.partition(b"\r\n")
                if not digits.isdigit() or len(digits) > _DIGITS or int(digits) != length:
                    return
                key = before + found + line_end + rest
                break
        else:
            if length is not None:
                return
        if len(self._heads) >= self._limit:
            self._heads.clear()
        if self._limit:
            self._heads[key] = head

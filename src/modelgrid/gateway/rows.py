"""The supervisor's side of the ledger: it makes the memory, gives out the rows, and clears up after whoever had one."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from pathlib import Path
from typing import Final

from modelgrid.gateway.ledger import (
    HEADER_BYTES,
    IN_FLIGHT,
    LAYOUT,
    LAYOUT_AT,
    LIVE_AT,
    ROW_BYTES,
    ROWS,
    SLOT_WORDS,
    WAITING,
)

LINGER_S: Final = 120.0  # what was counted in this minute and the last one still counts after its worker

_PAGE_BYTES: Final = 4096
_NOTHING: Final = bytes(_PAGE_BYTES)


class NoRow(Exception):
    """More workers than rows."""


class Rows:
    """Memory for the counts of `count` processes, at most `ROWS`.

    It has no place in a file system that a disk stands behind: whoever wrote a number could be kept waiting while the
    kernel writes the page out. Processes that have inherited `descriptor` open `path`; there is no other way to it.
    """

    def __init__(self, count: int) -> None:
        self._count = min(count, ROWS)
        size = HEADER_BYTES + self._count * ROW_BYTES
        self.descriptor = _make()
        os.ftruncate(self.descriptor, size)
        self._memory = mmap.mmap(self.descriptor, size)
        self._whole = memoryview(self._memory)
        self._header: memoryview[int] = self._whole[:16].cast("Q")
        self._header[LAYOUT_AT] = LAYOUT
        self._taken: set[int] = set()
        self._ended: dict[int, float] = {}  # when the last worker of a row that still counts has ended

    @property
    def path(self) -> Path:
        """For those who have inherited the descriptor."""
        return Path(f"/dev/fd/{self.descriptor}")

    @property
    def has_one(self) -> bool:
        """One can be taken."""
        return len(self._taken) < self._count

    def take(self) -> int:
        """A row for a process that will be started. It goes on counting what one before it has counted by the minute.
        Raises NoRow."""
        free = [row for row in range(self._count) if row not in self._taken]
        if not free:
            raise NoRow(f"all {self._count} rows of the ledger are taken")
        row = max(free, key=lambda free_row: self._ended.get(free_row, -1.0 - free_row))  # few rows are to be read
        self._taken.add(row)
        self._ended.pop(row, None)
        self._header[LIVE_AT] |= 1 << row
        return row

    def give_back(self, row: int, now: float) -> None:
        """The process that had it has ended, in whatever way: it has nothing in flight or waiting any more. What it
        counted by the minute goes on counting, else each replacement would begin everybody's minute anew."""
        self.settle(row)
        self._taken.discard(row)
        self._ended[row] = now

    def settle(self, row: int) -> None:
        """The process that had it has died, and another one will have it."""
        for page in self._pages(row):
            words = page.cast("q")
            for slot in range(0, len(words), SLOT_WORDS):
                words[slot + IN_FLIGHT] = 0
                words[slot + WAITING] = 0

    def forget(self, now: float) -> None:
        """Rows whose last minutes are over are read by nobody any more. To be called now and then."""
        for row in [row for row, ended in self._ended.items() if now - ended >= LINGER_S]:
            del self._ended[row]
            self._header[LIVE_AT] &= ~(1 << row)

    def close(self) -> None:
        """Let go of it: it is gone with the last process that has it."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)

    def _pages(self, row: int) -> list[memoryview[int]]:
        """Those with something in them. The others are not touched, not even read: each would take memory from then on,
        which a file that is read does not."""
        start = HEADER_BYTES + row * ROW_BYTES
        content = os.pread(self.descriptor, ROW_BYTES, start)
        filled = (at for at in range(0, ROW_BYTES, _PAGE_BYTES) if content[at : at + _PAGE_BYTES] != _NOTHING)
        return [self._whole[start + at : start + at + _PAGE_BYTES] for at in filled]


def _make() -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("modelgrid-ledger")
        os.fchmod(descriptor, 0o600)
        return descriptor
    descriptor, name = tempfile.mkstemp(prefix="modelgrid-ledger-")  # mode 0600
    Path(name).unlink()
    return descriptor

"""Counts that gateway workers share: each writes a row of its own in one piece of memory, and reads the others'.

No lock is taken and nothing is waited for. A number is 8 bytes at an address divisible by 8, which processors of today
write and read whole, and only one process ever writes it: the worker whose row it is in, or, once that worker has
ended, the supervisor (`modelgrid.gateway.rows`). So no count gets lost, and what a worker reads of others is at most
as old as their last write.

The memory begins with a header, which the supervisor alone writes: which layout this is, and which rows are live. With
one live row nothing but that is read. A slot is one cache line, so that workers that count different things don't
disturb each other, and memory is used only for pages whose slots have been.
"""

from __future__ import annotations

import mmap
import threading
from pathlib import Path
from typing import Final

import structlog

SLOTS: Final = 16_384
ROWS: Final = 64

# The words of a slot, of 8 bytes each. The last one is spare. What is counted by the minute has a word for even and one
# for odd minutes: when a minute begins, what was counted in the last one stays where a reader looks for it.
IN_FLIGHT: Final = 0
WAITING: Final = 1
MINUTE: Final = 2  # the last one that something was counted in
REQUESTS: Final = 3
TOKENS: Final = 5
SLOT_WORDS: Final = 8

# Slot 0 is about the worker itself: its first word is one more than its connections, and zero when it takes no more.
CONNECTIONS: Final = IN_FLIGHT

HEADER_BYTES: Final = 1 << 16  # a page, however large pages are
ROW_BYTES: Final = SLOTS * SLOT_WORDS * 8
LAYOUT: Final = 0x6D67_0001  # another number for another layout: workers of two versions meet in a replacement
LAYOUT_AT: Final = 0
LIVE_AT: Final = 1  # bit n: row n counts

_log = structlog.get_logger()


class LedgerError(Exception):
    """Memory that can't be shared; the text says why."""


class Ledger:
    """One worker's view of all rows. Slot 0 is nobody's: nothing is counted for it.

    A slot's `begin` and `end` pair up in the same worker. Every method returns at once."""

    __slots__ = ("_all", "_fence", "_header", "_live", "_others", "_own", "_row", "_rows")

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        whole = memoryview(memory)
        self._header: memoryview[int] = whole[:16].cast("Q")
        self._rows = whole[HEADER_BYTES:]
        self._row = row
        self._own = self._view(row)
        self._live = 0
        self._others: tuple[memoryview[int], ...] = ()
        self._all: tuple[memoryview[int], ...] = (self._own,)
        self._fence = threading.Lock()
        self._fence.acquire()

    @classmethod
    def alone(cls) -> Ledger:
        """Of this process's own, with one row."""
        return cls(mmap.mmap(-1, HEADER_BYTES + ROW_BYTES), 0)

    @classmethod
    def shared(cls, path: Path, row: int) -> Ledger:
        """Row `row` of memory that a supervisor has made. Raises LedgerError."""
        try:
            with path.open("r+b") as file:
                memory = mmap.mmap(file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise LedgerError(f"cannot share counts with other workers: {path}: {error}") from error
        if len(memory) < HEADER_BYTES or memoryview(memory)[:16].cast("Q")[LAYOUT_AT] != LAYOUT:
            raise LedgerError(
                f"cannot share counts with other workers: {path} is laid out by another version "
                "(restart modelgrid serve)"
            )
        if not 0 <= row < (len(memory) - HEADER_BYTES) // ROW_BYTES:
            raise LedgerError(f"cannot share counts with other workers: {path} has no row {row}")
        return cls(memory, row)

    def begin(self, slot: int) -> None:
        """One more is in flight here."""
        if slot:
            self._own[slot * 8] += 1  # SLOT_WORDS, IN_FLIGHT: looked up they cost as much again

    def end(self, slot: int) -> None:
        """One less."""
        if slot:
            self._own[slot * 8] -= 1

    def wait(self, slot: int) -> None:
        """One more waits here."""
        if slot:
            self._own[slot * 8 + 1] += 1

    def wait_over(self, slot: int) -> None:
        """One less."""
        if slot:
            self._own[slot * 8 + 1] -= 1

    def elsewhere(self, slot: int) -> int:
        """In flight in the other workers."""
        if not slot:
            return 0
        if self._header[1] != self._live:
            self._look()
        total = 0
        for row in self._others:
            total += row[slot * 8]
        return total

    def in_flight(self, slot: int) -> int:
        """In flight in all workers, this one included."""
        return self._sum(slot * SLOT_WORDS + IN_FLIGHT)

    def waiting(self, slot: int) -> int:
        """Waiting in all workers, this one included."""
        return self._sum(slot * SLOT_WORDS + WAITING)

    @property
    def is_alone(self) -> bool:
        """No other row is live."""
        if self._header[1] != self._live:
            self._look()
        return not self._others

    # For the door, at which workers take connections in turn.

    def open_door(self, connections: int) -> None:
        """This worker takes connections, and has so many."""
        self._own[CONNECTIONS] = connections + 1

    def close_door(self) -> None:
        """It takes no more."""
        self._own[CONNECTIONS] = 0

    def fewest_connections_elsewhere(self) -> int | None:
        """Of another worker that takes connections; None where there is none."""
        if self._header[LIVE_AT] != self._live:
            self._look()
        return min((found - 1 for row in self._others if (found := row[CONNECTIONS])), default=None)

    # For quotas, which count several words of a slot.

    @property
    def own(self) -> memoryview[int]:
        """The words of the row that this process writes."""
        return self._own

    def rows(self) -> tuple[memoryview[int], ...]:
        """The words of all live rows, this process's own first."""
        if self._header[1] != self._live:
            self._look()
        return self._all

    def rows_after_writes(self) -> tuple[memoryview[int], ...]:
        """The same. Of two processes that write, call this and read, at least one reads what the other has written."""
        # A processor may read ahead of its own writes, which are still on their way to the others. It may not across a
        # lock that is let go and taken again, and Python has no cheaper way to say so.
        self._fence.release()
        self._fence.acquire()
        return self.rows()

    def _sum(self, word: int) -> int:
        if word < SLOT_WORDS:
            return 0
        if self._header[1] != self._live:
            self._look()
        total = 0
        for row in self._all:
            total += row[word]
        return total

    def _look(self) -> None:
        live = self._header[LIVE_AT]
        count = len(self._rows) // ROW_BYTES
        self._others = tuple(self._view(row) for row in range(count) if live >> row & 1 and row != self._row)
        self._all = (self._own, *self._others)
        self._live = live

    def _view(self, row: int) -> memoryview[int]:
        return self._rows[row * ROW_BYTES : (row + 1) * ROW_BYTES].cast("q")


def open_ledger(path: Path | None, row: int) -> Ledger:
    """The supervisor's, where it has made one. A worker that can't share its counts serves, and counts for itself."""
    if path is None:
        return Ledger.alone()
    try:
        return Ledger.shared(path, row)
    except LedgerError as error:
        _log.error("worker counts alone", why=str(error))
        return Ledger.alone()

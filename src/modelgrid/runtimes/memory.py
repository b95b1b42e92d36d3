"""The memory that a replica's processes hold: what they share is counted once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from modelgrid.runtimes.census import Member
from modelgrid.spec import ReplicaId

_EVERY_S = 2.0
_SHARE = 20  # looking takes at most one part in twenty of the time: the kernel walks all pages of a process


class MemoryMeter:
    """Remembers each replica's figure for two seconds, longer where it costs much. Not for two threads at once."""

    def __init__(self) -> None:
        self._known: dict[ReplicaId, tuple[float, int | None]] = {}

    def read_bytes(self, replica: ReplicaId, members: Sequence[Member]) -> int | None:
        """What `members` hold together; None where none of them can be read."""
        began = time.monotonic()
        until, held_bytes = self._known.get(replica, (0.0, None))
        if began < until:
            return held_bytes
        figures = [figure for member in members if (figure := _process_bytes(member.identity.pid)) is not None]
        held_bytes = sum(figures) if figures else None
        now = time.monotonic()
        self._known[replica] = (now + max(_EVERY_S, (now - began) * _SHARE), held_bytes)
        return held_bytes

    def forget(self, replica: ReplicaId) -> None:
        """Drop what is remembered of a replica that has gone."""
        self._known.pop(replica, None)


def _process_bytes(pid: int) -> int | None:
    """The proportional set size: pages that n processes share count 1/n for each. Where the kernel doesn't tell, the
    resident set."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None

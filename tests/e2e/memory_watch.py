"""Look at the memory of all engines of one modelgrid, fifty times a second, from a process of its own.

``python memory_watch.py INSTANCE``: until its input is closed; then it prints what it has seen, as JSON.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

EVERY_S = 0.02
YOUNG_S = 1.0  # between fork and exec a process shows its parent's environment
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Watch until the input is closed."""
    watch = Watch(sys.argv[1])
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        watch.look()
    print(json.dumps(watch.seen()))  # noqa: T201  the answer of a program


class Watch:
    """What the processes of `instance`'s replicas hold together. Nothing of modelgrid's own code has a say in it."""

    def __init__(self, instance: str) -> None:
        self._mark = f"MODELGRID_INSTANCE={instance}".encode()
        self._known: dict[tuple[int, int], str | None] = {}  # by process and its start: whose replica's
        self._samples = 0
        self._most: Counter[str] = Counter()
        self._engines: set[str] = set()
        self._together = 0

    def look(self) -> None:
        """Once. One that ends meanwhile makes a look void: its memory may have been another's before that was read."""
        held: Counter[str] = Counter()
        found = self._engines_now()
        for pid, (started, replica) in found.items():
            size = _held_bytes(pid)
            if size is None:
                return
            held[f"{replica} {pid} {started}"] = size
        if any(_stat(pid) is None for pid in found):
            return
        self._samples += 1
        self._engines |= set(held)
        self._together = max(self._together, len(held))
        if held.total() > self._most.total():
            self._most = held

    def seen(self) -> dict[str, Any]:
        """All of it."""
        return {
            "samples": self._samples,
            "most_bytes": self._most.total(),
            "most": dict(self._most),
            "engines": sorted(self._engines),
            "together": self._together,
        }

    def _engines_now(self) -> dict[int, tuple[int, str]]:
        found = {}
        known, self._known = self._known, {}
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for name in os.listdir("/proc"):  # noqa: PTH208  plain names, fifty times a second
            if not name.isdigit() or (started := _stat(int(name))) is None:
                continue
            process = (int(name), started)
            replica = known.get(process)
            if replica is None and (process not in known or now - started / _TICKS < YOUNG_S):
                replica = self._replica(process[0])
            self._known[process] = replica
            if replica is not None:
                found[process[0]] = (started, replica)
        return found

    def _replica(self, pid: int) -> str | None:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        if self._mark not in environ:
            return None
        marks = [word.partition(b"=")[2] for word in environ if word.startswith(b"MODELGRID_REPLICA=")]
        return marks[0].decode() if marks else None


def _stat(pid: int) -> int | None:
    """When a process started, in ticks; None when it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if words[0] in (b"Z", b"X") else int(words[19])


def _held_bytes(pid: int) -> int | None:
    """The proportional set size: what several processes share is counted once. None when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


if __name__ == "__main__":
    main()

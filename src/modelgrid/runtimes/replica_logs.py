"""Replicas' logs: files that engines append to themselves, so that they write on when we are gone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from modelgrid.spec import ReplicaId

_CAP_BYTES = 64 * 2**20
_KEPT = 200  # logs of replicas that have gone
_TAIL_BYTES = 2**20  # of a log is shown at most


class ReplicaLogs:
    """One file a replica, and one older one beside it."""

    def __init__(self, folder: Path, *, cap_bytes: int = _CAP_BYTES, kept: int = _KEPT) -> None:
        self._folder = folder
        self._cap_bytes = cap_bytes
        self._kept = kept

    def open(self, replica: ReplicaId) -> BinaryIO:
        """A fresh log to append to; an earlier one of the same id is set aside. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(replica)
        if path.exists():
            path.replace(_older(path))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "ab", buffering=0)

    def cap(self, replica: ReplicaId) -> None:
        """Set a log aside that has grown too long, and let it start anew; a line written meanwhile may be lost."""
        path = self._path(replica)
        try:
            if path.stat().st_size > self._cap_bytes:
                shutil.copyfile(path, _older(path))
                os.truncate(path, 0)  # who appends goes on at the start
        except OSError:
            pass  # a full disk must not keep us from seeing replicas; the next lap tries again

    def tail(self, replica: ReplicaId, lines: int) -> list[str]:
        """The last lines, those set aside included; empty when there are none."""
        path = self._path(replica)
        newest = _last_lines(path, lines)
        if len(newest) >= lines:
            return newest
        return _last_lines(_older(path), lines - len(newest)) + newest

    def prune(self, keep: Collection[ReplicaId]) -> None:
        """Remove the oldest logs of replicas that are not in `keep`, beyond a number."""
        kept = {self._path(replica).name for replica in keep}
        gone = [(_written(path), path) for path in self._folder.glob("*.log") if path.name not in kept]
        for _, path in sorted(gone, reverse=True)[self._kept :]:
            path.unlink(missing_ok=True)
            _older(path).unlink(missing_ok=True)

    def _path(self, replica: ReplicaId) -> Path:
        return self._folder / f"{quote(replica, safe='')}.log"


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # somebody else removed it meanwhile


def _last_lines(path: Path, lines: int) -> list[str]:
    if lines <= 0:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - _TAIL_BYTES)
            file.seek(start)
            content = file.read(_TAIL_BYTES)
    except OSError:
        return []
    found = content.decode("utf-8", "replace").split("\n")
    if found[-1] == "":
        found.pop()
    if start and len(found) > 1:
        found = found[1:]  # cut in its middle
    return [line.removesuffix("\r") for line in found[-lines:]]

"""Jobs in a folder: what outlives its request, the service, and who took it up.

A job is a folder of its own: ``job.json``, what came with the request, and what was made of it. Several services may
share a folder: whoever works on a job holds its lock, which the system takes back when that process dies. A job is
deleted by renaming its folder, so whoever works on it finds it gone at its next step, in whichever process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

_FILE: Final = "job.json"
_LOCK: Final = "lock"
_COMING, _GOING = ".new-", ".gone-"
_ABANDONED_S: Final = 3600.0  # a folder that nobody finished making or removing for so long is nobody's


class Status(StrEnum):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class Gone(Exception):
    """The job has been deleted."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be made, and how far it is. Times are seconds since the epoch."""

    id: str
    asked: Mapping[str, Any]  # what the service needs to make it; JSON
    created_at: float
    status: Status = Status.QUEUED
    progress: int = 0  # percent
    begun: int = 0  # how often
    completed_at: float | None = None
    expires_at: float | None = None
    error: Mapping[str, str] | None = None  # code, message

    @property
    def is_over(self) -> bool:
        return self.status in (Status.COMPLETED, Status.FAILED)


_FIELDS: Final = frozenset(field.name for field in dataclasses.fields(Job))


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much is kept of what is over; the oldest goes first."""

    age_s: float = 24 * 3600.0
    jobs: int = 1000
    folder_bytes: int = 10 << 30


class Jobs:
    """The jobs of a folder. Its methods block, for as long as a disk takes, and any thread may call them."""

    def __init__(self, folder: Path, kind: str, keeping: Keeping | None = None) -> None:
        self.folder = folder
        self.keeping = keeping or Keeping()
        self._kind = kind
        self._id = re.compile(rf"{re.escape(kind)}_[0-9a-f]{{32}}")

    def add(self, asked: Mapping[str, Any], now: float, files: Mapping[str, bytes] | None = None) -> Job:
        """A new job, with the files that it needs."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        job = Job(f"{self._kind}_{secrets.token_hex(16)}", asked, now)
        coming = self.folder / f"{_COMING}{job.id}"
        coming.mkdir(mode=0o700)
        try:
            for name, content in (files or {}).items():
                (coming / name).write_bytes(content)
            (coming / _LOCK).touch(mode=0o600)
            _write(coming, job)
            coming.rename(self.folder / job.id)
        except OSError:  # a full disk: what was written takes the room for what else is to be told
            shutil.rmtree(coming, ignore_errors=True)
            raise
        return job

    def get(self, id: str) -> Job | None:
        """The job of that id; None where there is none."""
        return self._read(id) if self._id.fullmatch(id) else None

    def path(self, id: str, name: str) -> Path:
        """Where a file of a job lies, or would."""
        assert self._id.fullmatch(id)
        return self.folder / id / name

    def all(self) -> list[Job]:
        """All of them, oldest first."""
        try:
            names = [entry.name for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return []
        found = [self._read(name) for name in names if self._id.fullmatch(name)]
        return sorted((job for job in found if job is not None), key=lambda job: (job.created_at, job.id))

    def claim(self) -> Claim | None:
        """The oldest that nobody works on and that isn't over, to work on; None where there is none."""
        for job in self.all():
            if not job.is_over and (claim := self._claimed(job.id)) is not None:
                return claim
        return None

    def remove(self, id: str) -> bool:
        """Delete a job, whatever becomes of it now. False where there is none."""
        if self.get(id) is None:
            return False
        going = self.folder / f"{_GOING}{id}"
        try:
            (self.folder / id).rename(going)
        except FileNotFoundError:
            return False
        shutil.rmtree(going, ignore_errors=True)  # who works on it may write into it yet: `sweep` comes back
        return True

    def sweep(self, now: float) -> list[str]:
        """Remove what is over and has expired or is too much. Tells whose."""
        self._sweep_abandoned(now)
        over = [job for job in self.all() if job.is_over]
        room_bytes, room, removed = self.keeping.folder_bytes, self.keeping.jobs, []
        for job in sorted(over, key=lambda job: job.completed_at or 0, reverse=True):
            room_bytes -= _size(self.folder / job.id)
            room -= 1
            if (room < 0 or room_bytes < 0 or (job.expires_at or now) <= now) and self.remove(job.id):
                removed.append(job.id)
        return removed

    def _claimed(self, id: str) -> Claim | None:
        try:
            lock = os.open(self.folder / id / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        job = self._read(id)  # again: it may have been completed, or deleted, before the lock was ours
        if job is None or job.is_over:
            os.close(lock)
            return None
        return Claim(self.folder / id, job, lock)

    def _read(self, id: str) -> Job | None:
        try:
            known = json.loads((self.folder / id / _FILE).read_bytes())
            fields = {name: known[name] for name in _FIELDS & set(known)}  # a later version may write more
            return Job(**{**fields, "status": Status(known["status"])})
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None  # one that can't be read keeps nobody from the others

    def _sweep_abandoned(self, now: float) -> None:
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.folder):
                if entry.name.startswith((_COMING, _GOING)) and now - entry.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(entry.path, ignore_errors=True)


class Claim:
    """A job to work on, and the lock that says so. `release` it."""

    def __init__(self, folder: Path, job: Job, lock: int) -> None:
        self.job = job
        self._folder = folder
        self._lock = lock
        self._telling = threading.Lock()  # whoever works on it, and whoever ends that

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def path(self, name: str) -> Path:
        """Where a file of the job lies, or is to be written. It goes with the job."""
        return self._folder / name

    def keep(self, part: Path, name: str) -> None:
        """What was written to `part` is a file of the job, and on the disk when this returns: a job that is told to be
        completed has its film, whatever happens to the machine then."""
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(self.path(name))

    def tell(self, **changes: Any) -> Job:
        """Write down how far it is. Raises Gone where it has been deleted."""
        with self._telling:
            self.job = dataclasses.replace(self.job, **changes)
            try:
                _write(self._folder, self.job)
            except FileNotFoundError:
                raise Gone from None
            return self.job

    def check(self) -> None:
        """Raises Gone where it has been deleted."""
        if not (self._folder / _FILE).exists():
            raise Gone

    def release(self) -> None:
        """Let others work on it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _write(folder: Path, job: Job) -> None:
    """Whole or not at all, and on the disk when this returns."""
    fresh = folder / f"{_FILE}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(dataclasses.asdict(job), out)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(folder / _FILE)


def _size(folder: Path) -> int:
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat().st_size

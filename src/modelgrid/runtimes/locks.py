"""Lock files: one holder at a time, among threads and processes; the kernel frees what the dead held."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path


class LockTimeout(Exception):
    """Somebody else held the lock for all of the time that there was."""


def try_lock(path: Path) -> int | None:
    """Take the lock: a descriptor, to be closed by the holder. None when somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A holder may have removed the file after we opened it: a lock on a file without a name locks nobody out.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock. Raises LockTimeout."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise LockTimeout(path.name)
        time.sleep(0.005)
    try:
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def locked_by_task(path: Path, waiting: Callable[[], None]) -> AsyncIterator[int]:
    """Hold the lock for as long as the work takes; waits without blocking the loop. Gives the descriptor."""
    descriptor = try_lock(path)
    if descriptor is None:
        waiting()
    while descriptor is None:
        await asyncio.sleep(0.05)
        descriptor = try_lock(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

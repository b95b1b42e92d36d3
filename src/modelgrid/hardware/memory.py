"""Main memory: what there is, and what this process's cgroup leaves of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class MainMemory:
    """Bytes of memory; `is_limited` where a cgroup allows less than the machine has."""

    total_bytes: int
    is_limited: bool


def main_memory(*, root: Path = _ROOT, physical_bytes: int | None = None) -> MainMemory:
    """The memory that processes started from here may take together. `root` is where /proc and /sys hang."""
    physical = psutil.virtual_memory().total if physical_bytes is None else physical_bytes
    least = min(_cgroup_limits(root), default=physical)
    return MainMemory(min(least, physical), is_limited=least < physical)


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Limits of this process's cgroup and all above it: each bounds what is below."""
    for folder, name in _cgroup_folders(root):
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # v2 says "max" where there is no limit, v1 a number beyond any machine's memory
            yield int(text)


def _cgroup_folders(root: Path) -> Iterator[tuple[Path, str]]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            # Hybrid hierarchies mount the second version below the first.
            mounts = [(root / "sys/fs/cgroup", "memory.max"), (root / "sys/fs/cgroup/unified", "memory.max")]
        elif "memory" in controllers.split(","):
            mounts = [(root / "sys/fs/cgroup/memory", "memory.limit_in_bytes")]
        else:
            continue
        for mount, name in mounts:
            yield from ((folder, name) for folder in _from_mount_down(mount, path))


def _from_mount_down(mount: Path, path: str) -> Iterator[Path]:
    """In a container the path may be the host's: what isn't there is left out, the mount itself is the limit."""
    yield mount
    folder = mount
    for part in Path(path.lstrip("/")).parts:
        if part == "..":  # the process's cgroup lies outside of what is mounted here
            return
        folder /= part
        yield folder

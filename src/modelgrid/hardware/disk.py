"""Room on disks."""

from __future__ import annotations

import shutil
from pathlib import Path


def free_disk_bytes(path: Path) -> int:
    """What may still be written where `path` lies or will lie. Raises OSError where that can't be had."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free

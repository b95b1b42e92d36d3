"""Weights that lie on this machine: found, listed, removed.

What was pulled from a hub lies in ``root/OWNER/NAME``. A file there, written last, says that it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelgrid.weights.source import WeightsError, hub_id, is_path

MARKER = ".modelgrid.json"


@dataclass(frozen=True, slots=True)
class Held:
    """Weights that were pulled. `modified` is seconds since the epoch."""

    source: str
    path: Path
    size_bytes: int
    modified: float


def resolve(source: str, root: Path) -> Path | None:
    """The path of a source's files. None where there are none: not pulled yet or only in part (see `needs_pull`), or
    of a kind that has no files of its own (``package:…``, ``stand-in``)."""
    if is_path(source):
        return Path(source) if Path(source).exists() else None
    folder = folder_of(source, root)
    return folder if folder and (folder / MARKER).is_file() else None


def needs_pull(source: str, root: Path) -> bool:
    """Whether a model of this source can't start before `pull` was called; for a path that isn't there `pull` says
    so."""
    return resolve(source, root) is None and (is_path(source) or hub_id(source) is not None)


def folder_of(source: str, root: Path) -> Path | None:
    """Where a hub's model lies, or would lie."""
    name = hub_id(source)
    return root / name if name else None


def mark_whole(folder: Path, source: str, revision: str | None) -> None:
    """Say that all files are there."""
    made = folder / f"{MARKER}.new"
    made.write_text(json.dumps({"source": source, "revision": revision}))
    made.replace(folder / MARKER)


def list_weights(root: Path) -> list[Held]:
    """All that was pulled whole, by name."""
    return sorted((_held(folder, root) for folder in _marked(root)), key=lambda held: held.source)


def remove(source: str, root: Path) -> int:
    """Delete what was pulled, whole or in part; the bytes that this freed. Raises WeightsError."""
    folder = folder_of(source, root)
    if folder is None:
        raise WeightsError(
            f"cannot remove {source}: it was not pulled by modelgrid, so its files are not ours to delete"
        )
    if not folder.is_dir():
        raise WeightsError(f"cannot remove {source}: it is not there (see: modelgrid model list)")
    freed = folder_bytes(folder)
    try:
        # First of all: what is half removed must not look whole.
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise WeightsError(f"cannot remove {source}: {error.strerror}: {error.filename}") from error
    if folder.parent != root and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return freed


def folder_bytes(folder: Path) -> int:
    """What all the files in a folder take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _marked(root: Path) -> Iterator[Path]:
    for pattern in (f"*/{MARKER}", f"*/*/{MARKER}"):
        yield from (marker.parent for marker in root.glob(pattern))


def _held(folder: Path, root: Path) -> Held:
    return Held(
        source=str(folder.relative_to(root)),
        path=folder,
        size_bytes=folder_bytes(folder),
        modified=(folder / MARKER).stat().st_mtime,
    )

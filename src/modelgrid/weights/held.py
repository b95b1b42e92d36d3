"""Weights that lie on this machine: found, listed, removed.

What was pulled from a hub lies in ``root/OWNER/NAME``, what was picked of its GGUF files in ``root/OWNER/NAME--PICK``
(no hub has two dashes in a name), and what has no owner in ``root/_/NAME``. A file there, written last, says that it is
whole. Tags of Ollama's lie as Ollama has them (`modelgrid.weights.layers`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from modelgrid.spec.source import HubModel, OllamaTag, is_path, parse_source
from modelgrid.weights import layers
from modelgrid.weights.explain import WeightsError

MARKER: Final = ".modelgrid.json"
PARTS: Final = ".parts"
_LOCKS: Final = ".locks"
_PICKED: Final = "--"
_NO_OWNER: Final = "_"  # is no name of one


@dataclass(frozen=True, slots=True)
class Held:
    """Weights that were pulled. `path` is what an engine is given; `modified` is seconds since the epoch."""

    source: str
    path: Path
    size_bytes: int
    modified: float
    is_whole: bool = True  # else a pull of it was broken off, and can be resumed


def resolve(source: str, root: Path) -> Path | None:
    """What an engine is given of a source: its folder, its (first) GGUF file, or the folder of all tags of Ollama's
    (OLLAMA_MODELS). None where there is nothing: not pulled yet or only in part (see `needs_pull`), or of a kind that
    has no files of its own (``package:…``, ``stand-in``)."""
    if is_path(source):
        return Path(source) if exists(source) else None
    wanted = parse_source(source)
    if isinstance(wanted, OllamaTag):
        return layers.folder(root) if layers.is_whole(wanted, root) else None
    return _entry(folder_of(wanted, root)) if wanted else None


def needs_pull(source: str, root: Path) -> bool:
    """Whether a model of this source can't start before `pull` was called; for a path that isn't there `pull` says
    so."""
    return resolve(source, root) is None and (is_path(source) or parse_source(source) is not None)


def exists(path: str) -> bool:
    """Whether there is anything at `path`; no, where that can't be looked at, or can't be a path."""
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises where a name is too long, or a folder is closed


def folder_of(model: HubModel, root: Path) -> Path:
    """Where a hub's model lies, or would lie."""
    owner, _, name = model.repository.rpartition("/")
    picked = f"{_PICKED}{quote(model.pick, safe=' ()+')}" if model.pick else ""
    return root / (owner or _NO_OWNER) / f"{name}{picked}"


def mark_whole(folder: Path, model: HubModel, revision: str, entry: str | None) -> None:
    """Say that all files are there, and which of them is named to an engine, where it isn't the folder."""
    made = folder / f"{MARKER}.new"
    with made.open("w") as out:
        json.dump({"source": str(model), "revision": revision, "entry": entry}, out)
        out.flush()
        os.fsync(out.fileno())
    made.replace(folder / MARKER)


def list_weights(root: Path) -> list[Held]:
    """All that was pulled, whole or in part, by name."""
    found = [*_pulled_from_hubs(root), *_pulled_as_ollama(root)]
    return sorted(
        (held for held in found if held.is_whole or held.size_bytes), key=lambda held: (held.source, not held.is_whole)
    )


def remove(source: str, root: Path) -> int:
    """Delete what was pulled, whole or in part; the bytes that this freed. Raises WeightsError."""
    wanted = parse_source(source)
    if wanted is None:
        raise WeightsError(
            f"cannot remove {source}: it was not pulled by modelgrid, so its files are not ours to delete"
        )
    try:
        with alone(wanted, root) as is_alone:
            if not is_alone:
                raise WeightsError(f"cannot remove {source}: it is being pulled now (stop that first)")
            freed = layers.remove(wanted, root) if isinstance(wanted, OllamaTag) else _remove(wanted, root)
    except OSError as error:
        raise WeightsError(f"cannot remove {source}: {error.strerror}: {error.filename}") from error
    if freed is None:
        raise WeightsError(f"cannot remove {source}: it is not there (see: modelgrid model list)")
    return freed


@contextmanager
def alone(wanted: HubModel | OllamaTag, root: Path, *, waits: bool = False) -> Iterator[bool]:
    """Whether no other process pulls or removes the same meanwhile. With `waits` until that is so."""
    if not root.is_dir() and not waits:
        yield True
        return
    lock = root / _LOCKS / quote(str(wanted), safe="")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def folder_bytes(folder: Path) -> int:
    """What all the files in a folder take."""
    return sum(_file_bytes(path) for path in folder.rglob("*"))


def _file_bytes(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:  # a pull has gone on, or somebody removes it
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _entry(folder: Path) -> Path | None:
    marker = folder / MARKER
    if not marker.is_file():
        return None
    entry = _marked(marker).get("entry")
    return folder / entry if isinstance(entry, str) else folder


def _marked(marker: Path) -> dict[str, Any]:
    try:
        told = json.loads(marker.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _remove(model: HubModel, root: Path) -> int | None:
    folder = folder_of(model, root)
    if not folder.is_dir():
        return None
    freed = folder_bytes(folder)
    # What is half removed looks begun, of no revision: it is listed, and the next pull takes nothing of it.
    marker, parts = folder / MARKER, folder / PARTS
    if marker.exists():
        marker.unlink() if parts.exists() else marker.replace(parts)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path != parts:
                shutil.rmtree(path)
        elif path != parts:
            path.unlink()
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return freed


def _pulled_from_hubs(root: Path) -> Iterator[Held]:
    for marker in root.glob(f"*/*/{MARKER}"):
        with suppress(FileNotFoundError):  # it is being removed
            yield _held(marker.parent, root, marker, _entry(marker.parent) or marker.parent)
    for parts in root.glob(f"*/*/{PARTS}"):
        with suppress(FileNotFoundError):  # or its pull has ended
            if not (parts.parent / MARKER).exists():
                yield _held(parts.parent, root, parts, parts.parent, is_whole=False)


def _held(folder: Path, root: Path, told: Path, path: Path, *, is_whole: bool = True) -> Held:
    repository, _, pick = folder.relative_to(root).as_posix().removeprefix(f"{_NO_OWNER}/").partition(_PICKED)
    source = str(HubModel(repository, unquote(pick) or None))
    return Held(source, path, folder_bytes(folder), told.stat().st_mtime, is_whole)


def _pulled_as_ollama(root: Path) -> Iterator[Held]:
    folder = layers.folder(root)
    for tag, manifest in layers.list_tags(root):
        yield Held(str(tag), folder, layers.size_bytes(manifest), manifest.stat().st_mtime)
    for source, parts in layers.list_begun(root):
        yield Held(source, folder, folder_bytes(parts), parts.stat().st_mtime, is_whole=False)

"""Pulling: a hub's model onto this machine, with progress, resumed where it was broken off."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelgrid.spec.units import format_bytes
from modelgrid.weights.choose import File
from modelgrid.weights.explain import explained
from modelgrid.weights.fetch import TIMEOUT_S, fetch_file
from modelgrid.weights.held import folder_of, mark_whole, resolve
from modelgrid.weights.hub import Listing, headers, list_files
from modelgrid.weights.source import WeightsError, is_path

METADATA_TIMEOUT_S = 10.0
SPARE_BYTES = 64 << 20  # that a pull leaves free
PARTS = ".parts"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is."""

    done_bytes: int
    total_bytes: int
    file: str  # the one that comes now

    def __str__(self) -> str:
        """For people: ``2.1 GiB of 14.2 GiB, model-00001-of-00004.safetensors``."""
        done = f"{format_bytes(self.done_bytes)} of {format_bytes(self.total_bytes)}"
        return f"{done}, {self.file}" if self.file else done


def pull(source: str, root: Path, on_progress: Callable[[Progress], None]) -> Path:
    """Fetch the weights of a hub's model into `root`, and return their folder.

    Blocks until all is there. What was broken off is resumed; what is there already is not fetched again.
    `on_progress` is called for every piece; what it raises breaks the pull off. Raises WeightsError.
    """
    folder = folder_of(source, root)
    if folder is None:
        if is_path(source) and not Path(source).exists():
            raise WeightsError(f"cannot find {source}: there is nothing at this path (check the model's source)")
        raise WeightsError(f"cannot pull {source}: it is not the id of a model on a hub (write it as OWNER/NAME)")
    if (held := resolve(source, root)) is not None:
        return held
    with explained(f"pull {source}", source), _alone(source, root):
        return resolve(source, root) or _pulled(source, folder, on_progress)


@contextmanager
def _alone(source: str, root: Path) -> Iterator[None]:
    """Of two processes that pull one model the second waits for the first."""
    lock = root / ".locks" / source.replace("/", "--")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _pulled(source: str, folder: Path, on_progress: Callable[[Progress], None]) -> Path:
    listing = list_files(source, METADATA_TIMEOUT_S)
    _check_names(listing)
    parts = folder / PARTS / listing.revision
    if (folder / PARTS).exists() and not parts.exists():
        shutil.rmtree(folder)  # begun from another revision: its files don't go with these
    parts.mkdir(parents=True, exist_ok=True)
    _check_disk(listing, folder, parts)
    _fetch(listing, folder, parts, on_progress)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    mark_whole(folder, source, listing.revision)
    return folder


def _fetch(listing: Listing, folder: Path, parts: Path, on_progress: Callable[[Progress], None]) -> None:
    import httpx

    total = sum(file.size_bytes for file in listing.files)
    done = 0
    with httpx.Client(headers=headers(), follow_redirects=True, timeout=TIMEOUT_S) as client:
        for file in listing.files:
            on_progress(Progress(done, total, file.name))
            if not _is_there(folder, file):
                tell = _teller(done, total, file.name, on_progress)
                fetch_file(client, listing.url(file), file, _part(parts, file), folder / file.name, tell)
            done += file.size_bytes
    on_progress(Progress(total, total, ""))


def _teller(before: int, total: int, name: str, on_progress: Callable[[Progress], None]) -> Callable[[int], None]:
    return lambda count: on_progress(Progress(before + count, total, name))


def _part(parts: Path, file: File) -> Path:
    return parts / f"{file.name}.part"


def _is_there(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size_bytes


def _check_names(listing: Listing) -> None:
    """A hub's names become paths: they stay within the folder."""
    for file in listing.files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0] == PARTS:
            raise WeightsError(f"cannot pull {listing.source}: {file.name!r} is not the name of a file")


def _check_disk(listing: Listing, folder: Path, parts: Path) -> None:
    missing = [file for file in listing.files if not _is_there(folder, file)]
    begun = sum(_part(parts, file).stat().st_size for file in missing if _part(parts, file).exists())
    need = sum(file.size_bytes for file in missing) - begun + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if need > free:
        raise WeightsError(
            f"cannot pull {listing.source}: it needs {format_bytes(need)}, {folder} has {format_bytes(free)} free "
            "(free some: modelgrid model remove NAME; or set storage.models to a folder on a larger disk)"
        )

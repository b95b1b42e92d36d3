"""Pulling: a hub's model or a tag of Ollama's onto this machine, with progress, resumed where it was broken off."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from modelgrid.spec.source import HubModel, OllamaTag, is_path, parse_source
from modelgrid.spec.units import format_bytes
from modelgrid.weights import layers
from modelgrid.weights.explain import Hub, Origin, WeightsError, explained
from modelgrid.weights.fetch import TIMEOUT_S, Wanted, fetch, keep
from modelgrid.weights.held import PARTS, alone, exists, folder_of, mark_whole, resolve
from modelgrid.weights.hub import Listing, headers, list_files
from modelgrid.weights.ollama import HEADERS, Registry, list_layers

METADATA_TIMEOUT_S: Final = 10.0
SPARE_BYTES: Final = 64 << 20  # that a pull leaves free
WAITS: Final = "another process is pulling it"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is. Nothing in total: that isn't known yet."""

    done_bytes: int
    total_bytes: int
    file: str  # the one that comes now, or why none does

    def __str__(self) -> str:
        """For people: ``2.1 GiB of 14.2 GiB, model-00001-of-00004.safetensors``."""
        if not self.total_bytes:
            return self.file
        done = f"{format_bytes(self.done_bytes)} of {format_bytes(self.total_bytes)}"
        return f"{done}, {self.file}" if self.file else done


OnProgress = Callable[[Progress], None]


def pull(source: str, root: Path, on_progress: OnProgress) -> Path:
    """Fetch the weights of a hub's model or of a tag of Ollama's into `root`, and return what `resolve` returns.

    Blocks until all is there. What was broken off is resumed; what is there already is not fetched again.
    `on_progress` is called for every piece; what it raises breaks the pull off. Raises WeightsError.
    """
    wanted = parse_source(source)
    if wanted is None:
        raise _not_pulled(source)
    if (held := resolve(source, root)) is not None:
        return held
    origin: Origin = Registry(wanted) if isinstance(wanted, OllamaTag) else Hub(wanted.repository)
    with explained(f"pull {source}", origin):
        with alone(wanted, root) as is_alone:
            if is_alone:
                return _pulled(wanted, root, on_progress)
        on_progress(Progress(0, 0, WAITS))
        with alone(wanted, root, waits=True):
            return resolve(source, root) or _pulled(wanted, root, on_progress)


def _not_pulled(source: str) -> WeightsError:
    if is_path(source) and not exists(source):
        return WeightsError(f"cannot find {source}: there is nothing at this path (check the model's source)")
    return WeightsError(
        f"cannot pull {source}: it is not the id of a model on a hub (write OWNER/NAME, OWNER/NAME:Q4_K_M or "
        "OWNER/NAME:FILE.gguf for one of its GGUF files, ollama:NAME:TAG for a tag of Ollama's)"
    )


def _pulled(wanted: HubModel | OllamaTag, root: Path, on_progress: OnProgress) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    if isinstance(wanted, OllamaTag):
        return _pulled_tag(wanted, root, on_progress)
    return _pulled_model(wanted, root, on_progress)


def _pulled_model(model: HubModel, root: Path, on_progress: OnProgress) -> Path:
    listing = list_files(model, METADATA_TIMEOUT_S)
    _check_names(listing)
    folder = folder_of(model, root)
    parts = folder / PARTS / listing.revision
    if (folder / PARTS).exists() and not parts.exists():
        shutil.rmtree(folder)  # begun from another revision: its files don't go with these
    wanted = [
        Wanted(file, listing.url(file), parts / f"{file.name}.part", folder / file.name) for file in listing.files
    ]
    _check_disk(str(model), wanted, root)
    parts.mkdir(parents=True, exist_ok=True)
    _fetch(wanted, headers(), on_progress)
    mark_whole(folder, model, listing.revision, listing.entry)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    return folder / listing.entry if listing.entry else folder


def _pulled_tag(tag: OllamaTag, root: Path, on_progress: OnProgress) -> Path:
    listing = list_layers(tag, METADATA_TIMEOUT_S)
    parts = layers.parts_of(tag, root)
    missing = [layer for layer in listing.layers if not layers.is_there(layer, root)]
    wanted = [
        Wanted(listing.file(layer), listing.url(layer), parts / f"{layer.sha256}.part", parts / layer.sha256)
        for layer in missing
    ]
    _check_disk(str(tag), wanted, root)
    parts.mkdir(parents=True, exist_ok=True)
    _fetch(wanted, HEADERS, on_progress)
    layers.keep(tag, listing.manifest, missing, root)
    return layers.folder(root)


def _fetch(files: Sequence[Wanted], sent: Mapping[str, str], on_progress: OnProgress) -> None:
    import httpx

    total = sum(wanted.file.size_bytes for wanted in files)
    done = 0
    with httpx.Client(headers=dict(sent), follow_redirects=True, timeout=TIMEOUT_S) as client:
        for wanted in files:
            name = wanted.file.name
            on_progress(Progress(done, total, name))
            if not wanted.is_there:
                fetch(client, wanted, _teller(done, total, name, on_progress))
                on_progress(Progress(done + wanted.file.size_bytes, total, f"checking {name}"))
                keep(wanted)
            done += wanted.file.size_bytes
    on_progress(Progress(total, total, ""))


def _teller(before: int, total: int, name: str, on_progress: OnProgress) -> Callable[[int], None]:
    return lambda count: on_progress(Progress(before + count, total, name))


def _check_names(listing: Listing) -> None:
    """A hub's names become paths: they stay within the folder."""
    for file in listing.files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] in ((), (PARTS,)) or "\0" in file.name:
            raise WeightsError(f"cannot pull {listing.model}: {file.name!r} is not the name of a file")


def _check_disk(source: str, files: Sequence[Wanted], folder: Path) -> None:
    missing = [wanted for wanted in files if not wanted.is_there]
    need = sum(max(0, wanted.file.size_bytes - wanted.begun_bytes) for wanted in missing)
    free = shutil.disk_usage(folder).free
    if missing and need + SPARE_BYTES > free:
        raise WeightsError(
            f"cannot pull {source}: it needs {format_bytes(need)}, and {format_bytes(SPARE_BYTES)} to spare; "
            f"{folder} has {format_bytes(free)} free "
            "(free some: modelgrid model remove NAME; or set storage.models to a folder on a larger disk)"
        )

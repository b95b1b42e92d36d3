"""What a model's weights are, before they are loaded: by the headers of their files, also where a hub has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelgrid.spec import Unknown
from modelgrid.spec.source import PACKAGE, STAND_IN, OllamaTag, parse_source
from modelgrid.spec.weights import Shape, Weights
from modelgrid.weights.choose import PIPELINE, SAFETENSORS, File, choose_files, weights_bytes, weights_of
from modelgrid.weights.explain import Hub, Origin, WeightsError, explained
from modelgrid.weights.ggufs import first_shard, shards_beside
from modelgrid.weights.headers import Counts, counts_of_header, gguf_facts, gguf_facts_of_start, safetensors_counts
from modelgrid.weights.held import resolve
from modelgrid.weights.hub import LONGEST_CONFIG, Listing, headers, list_files, pipeline_folders
from modelgrid.weights.layers import blob_of, layers_of
from modelgrid.weights.ollama import HEADERS, Registry, TagListing, list_layers
from modelgrid.weights.shape import shape_of_config, shape_of_gguf

if TYPE_CHECKING:
    import httpx

STAND_IN_BYTES: Final = 3 << 20
PACKAGE_BYTES: Final = 100 << 20  # an index takes no larger packages, unless it is asked to

_CONFIG: Final = "config.json"
_FIRST_BYTES: Final = 1 << 18  # most headers of one file are shorter: then one request is enough
_MOST_SHARDS: Final = 8  # are asked one after the other, where the hub doesn't tell their sum


def weigh(source: str, root: Path, timeout_s: float = 5.0) -> Weights | Unknown:
    """The weights of `source`: of the files that are there, else as the hub tells it. Blocks at most a few times
    `timeout_s`, and only where the hub has to be asked. What a header doesn't tell is left open."""
    if (held := weigh_held(source, root)) is not None:
        return held
    wanted = parse_source(source)
    if wanted is None:
        return Unknown(f"there is nothing at {source}")
    try:
        if isinstance(wanted, OllamaTag):
            return _remote_tag(list_layers(wanted, timeout_s), timeout_s)
        return _remote(list_files(wanted, timeout_s), timeout_s)
    except WeightsError as error:
        return Unknown(str(error))


def weigh_held(source: str, root: Path) -> Weights | Unknown | None:
    """The same, of what is on this machine; None where it isn't. Asks nobody."""
    if source == STAND_IN:
        return Weights(STAND_IN_BYTES)
    if source.startswith(PACKAGE):
        return Weights(PACKAGE_BYTES)
    path = resolve(source, root)
    if path is None:
        return None
    wanted = parse_source(source)
    try:
        return _tag(wanted, root) if isinstance(wanted, OllamaTag) else _local(path)
    except OSError as error:
        return Unknown(f"cannot read {path}: {error.strerror}")


def _local(path: Path) -> Weights | Unknown:
    if path.is_file():
        beside = [other.name for other in path.parent.iterdir()]
        return _gguf(path, sum((path.parent / name).stat().st_size for name in shards_beside(path.name, beside)))
    files = files_in(path)
    total = weights_bytes(files)
    if not total:
        return Unknown(f"{path} holds no weights")
    if (entry := first_shard([file.name for file in files])) is not None:
        return _gguf(path / entry, total)
    counts = [_counts(path / file.name) for file in weights_of(files)]
    return Weights(total, _sum(counts), _shape(path / _CONFIG))


def files_in(folder: Path) -> list[File]:
    """Those of a folder's files that an engine would load: as they would be chosen of a repository."""
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    files = [File(file.relative_to(folder).as_posix(), file.stat().st_size) for file in found]
    return choose_files(files, _components(folder))


def _components(folder: Path) -> frozenset[str] | None:
    try:
        return pipeline_folders(json.loads((folder / PIPELINE).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def _tag(tag: OllamaTag, root: Path) -> Weights:
    layers = [layer for layer in layers_of(tag, root) if layer.is_weights]
    total = sum(layer.size_bytes for layer in layers)
    model = next((layer for layer in layers if layer.is_model), None)
    return _gguf(blob_of(model, root), total) if model else Weights(total)


def _gguf(path: Path, total_bytes: int) -> Weights:
    """Its numbers are packed in blocks of several kinds: what they take is what the file takes."""
    try:
        _, facts = gguf_facts(path)
    except (OSError, ValueError):
        return Weights(total_bytes)
    return Weights(total_bytes, shape=shape_of_gguf(facts))


def _counts(path: Path) -> Counts | None:
    """None of what isn't safetensors: then their sum is open."""
    try:
        return safetensors_counts(path)
    except (OSError, ValueError):
        return None


def _shape(path: Path) -> Shape | None:
    try:
        return _parsed(path.read_bytes()) if path.stat().st_size <= LONGEST_CONFIG else None
    except OSError:
        return None


def _parsed(text: bytes) -> Shape | None:
    try:
        config: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return shape_of_config(config) if isinstance(config, dict) else None


def _remote(listing: Listing, timeout_s: float) -> Weights:
    total = weights_bytes(listing.files)
    files = {file.name: file for file in listing.files}
    config = found if (found := files.get(_CONFIG)) and found.size_bytes <= LONGEST_CONFIG else None
    try:
        with _asking(str(listing.model), Hub(listing.model.repository), headers(), timeout_s) as client:
            if listing.entry is not None:
                return Weights(total, shape=_ranged_shape(client, listing.url(files[listing.entry])))
            shape = _parsed(client.get(listing.url(config)).content) if config else None  # a refusal is no config
            parameters = listing.parameters or _ranged(client, listing)
    except WeightsError:
        return Weights(total, listing.parameters)
    return Weights(total, parameters, shape)


def _remote_tag(listing: TagListing, timeout_s: float) -> Weights:
    layers = [layer for layer in listing.layers if layer.is_weights]
    total = sum(layer.size_bytes for layer in layers)
    model = next((layer for layer in layers if layer.is_model), None)
    if model is None:
        return Weights(total)
    try:
        with _asking(str(listing.tag), Registry(listing.tag), HEADERS, timeout_s) as client:
            return Weights(total, shape=_ranged_shape(client, listing.url(model)))
    except WeightsError:
        return Weights(total)


@contextmanager
def _asking(what: str, origin: Origin, sent: Mapping[str, str], timeout_s: float) -> Iterator[httpx.Client]:
    import httpx

    with (
        explained(f"ask for {what}", origin),
        httpx.Client(headers=dict(sent), timeout=timeout_s, follow_redirects=True) as client,
    ):
        yield client


def _ranged(client: httpx.Client, listing: Listing) -> Counts:
    asked = weights_of(listing.files)
    if len(asked) > _MOST_SHARDS or any(not file.name.endswith(SAFETENSORS) for file in asked):
        return {}
    return _sum([_ranged_counts(client, listing.url(shard)) for shard in asked])


def _ranged_counts(client: httpx.Client, url: str) -> Counts | None:
    known = b""

    def read(start: int, length: int) -> bytes:
        nonlocal known
        if len(known) < start + length:
            known = _start(client, url, max(start + length, _FIRST_BYTES))
        return known[start : start + length]

    try:
        return counts_of_header(read)
    except ValueError:
        return None


def _ranged_shape(client: httpx.Client, url: str) -> Shape | None:
    try:
        return shape_of_gguf(gguf_facts_of_start(_start(client, url, _FIRST_BYTES)))
    except ValueError:
        return None


def _start(client: httpx.Client, url: str, length: int) -> bytes:
    """The first bytes of a file. Raises ValueError where all of it would come."""
    with client.stream("GET", url, headers={"Range": f"bytes=0-{length - 1}"}) as answer:
        if answer.status_code != 206:
            raise ValueError("the hub sends no parts of files")
        return answer.read()


def _sum(counts: Iterable[Mapping[str, int] | None]) -> dict[str, int]:
    """All of them, or nothing: a part would pass for the whole."""
    total: Counter[str] = Counter()
    for count in counts:
        if count is None:
            return {}
        total.update(count)
    return dict(total)

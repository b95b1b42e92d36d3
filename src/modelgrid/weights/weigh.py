"""What a model's weights are, before they are loaded: by the headers of their files, also where a hub has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelgrid.spec import Unknown
from modelgrid.spec.source import PACKAGE, STAND_IN
from modelgrid.spec.weights import Shape, Weights
from modelgrid.weights.choose import File, choose_files, weights_bytes
from modelgrid.weights.explain import explained
from modelgrid.weights.headers import Counts, counts_of_header, gguf_facts, safetensors_counts
from modelgrid.weights.held import resolve
from modelgrid.weights.hub import Listing, headers, list_files
from modelgrid.weights.shape import shape_of_config, shape_of_gguf
from modelgrid.weights.source import WeightsError, hub_id

if TYPE_CHECKING:
    import httpx

STAND_IN_BYTES: Final = 3 << 20
PACKAGE_BYTES: Final = 100 << 20  # an index takes no larger packages, unless it is asked to

_CONFIG: Final = "config.json"
_LONGEST_CONFIG: Final = 4 << 20
_FIRST_BYTES: Final = 1 << 18  # most headers of one file are shorter: then one request is enough
_MOST_SHARDS: Final = 8  # are asked one after the other, where the hub doesn't tell their sum


def weigh(source: str, root: Path, timeout_s: float = 5.0) -> Weights | Unknown:
    """The weights of `source`: of the files that are there, else as the hub tells it. Blocks at most a few times
    `timeout_s`, and only where the hub has to be asked. What a header doesn't tell is left open."""
    if source == STAND_IN:
        return Weights(STAND_IN_BYTES)
    if source.startswith(PACKAGE):
        return Weights(PACKAGE_BYTES)
    path = resolve(source, root)
    if path is not None:
        return _local(path)
    if hub_id(source) is None:
        return Unknown(f"there is nothing at {source}")
    try:
        listing = list_files(source, timeout_s)
    except WeightsError as error:
        return Unknown(str(error))
    return _remote(listing, timeout_s)


def _local(path: Path) -> Weights | Unknown:
    if path.is_file():
        return _gguf(path, path.stat().st_size)
    found = (file for file in sorted(path.rglob("*")) if file.is_file())
    files = choose_files(File(file.relative_to(path).as_posix(), file.stat().st_size) for file in found)
    total = weights_bytes(files)
    if not total:
        return Unknown(f"{path} holds no weights")
    ggufs = [file for file in files if file.name.endswith(".gguf")]
    if ggufs:
        return _gguf(path / ggufs[0].name, total)
    counts = [_counts(path / file.name) for file in _safetensors(files)]
    return Weights(total, _sum(counts), _shape(path / _CONFIG))


def _gguf(path: Path, total_bytes: int) -> Weights:
    """Its numbers are packed in blocks of several kinds: what they take is what the file takes."""
    try:
        _, facts = gguf_facts(path)
    except (OSError, ValueError):
        return Weights(total_bytes)
    return Weights(total_bytes, shape=shape_of_gguf(facts))


def _counts(path: Path) -> Counts | None:
    try:
        return safetensors_counts(path)
    except (OSError, ValueError):
        return None


def _shape(path: Path) -> Shape | None:
    try:
        return _parsed(path.read_bytes()) if path.stat().st_size <= _LONGEST_CONFIG else None
    except OSError:
        return None


def _parsed(text: bytes) -> Shape | None:
    try:
        config: Any = json.loads(text)
    except ValueError:
        return None
    return shape_of_config(config) if isinstance(config, dict) else None


def _remote(listing: Listing, timeout_s: float) -> Weights:
    import httpx

    total = weights_bytes(listing.files)
    config = next((file for file in listing.files if file.name == _CONFIG), None)
    shards = _safetensors(listing.files)
    try:
        with (
            explained(f"ask the hub for {listing.source}", listing.source),
            httpx.Client(headers=headers(), timeout=timeout_s, follow_redirects=True) as client,
        ):
            shape = _parsed(client.get(listing.url(config)).content) if config else None  # a refusal is no config
            parameters = listing.parameters or _ranged(client, listing, shards)
    except WeightsError:
        return Weights(total, listing.parameters)
    return Weights(total, parameters, shape)


def _ranged(client: httpx.Client, listing: Listing, shards: Iterable[File]) -> Counts:
    asked = list(shards)
    if len(asked) > _MOST_SHARDS:
        return {}
    return _sum([_ranged_counts(client, listing.url(shard)) for shard in asked])


def _ranged_counts(client: httpx.Client, url: str) -> Counts | None:
    known = b""

    def read(start: int, length: int) -> bytes:
        nonlocal known
        if len(known) < start + length:
            last = max(start + length, _FIRST_BYTES) - 1
            with client.stream("GET", url, headers={"Range": f"bytes=0-{last}"}) as answer:
                if answer.status_code != 206:  # all of it would come
                    raise ValueError("the hub sends no parts of files")
                known = answer.read()
        return known[start : start + length]

    try:
        return counts_of_header(read)
    except ValueError:
        return None


def _safetensors(files: Iterable[File]) -> list[File]:
    return [file for file in files if file.name.endswith(".safetensors")]


def _sum(counts: Iterable[Mapping[str, int] | None]) -> dict[str, int]:
    """All of them, or nothing: a part would pass for the whole."""
    total: Counter[str] = Counter()
    for count in counts:
        if count is None:
            return {}
        total.update(count)
    return dict(total)

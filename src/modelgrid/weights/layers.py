"""Tags of Ollama's on the disk, as Ollama itself has them: ``ollama serve`` with OLLAMA_MODELS set to `folder` finds
them (ollama/manifest/paths.go).

``manifests/HOST/NAMESPACE/NAME/TAG`` names the layers, ``blobs/sha256-DIGEST`` has them, shared between tags. A
manifest is written last. What is not whole yet lies beside, where ``ollama serve`` doesn't clean up.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from modelgrid.spec.source import OllamaTag

_FOLDER: Final = ".ollama"
_PARTS: Final = ".parts"
_MANIFESTS: Final = "manifests"

_MODEL = "application/vnd.ollama.image.model"
_WEIGHTS = (_MODEL, "application/vnd.ollama.image.projector", "application/vnd.ollama.image.adapter")
_TENSOR = "application/vnd.ollama.image.tensor"
_DIGEST: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a tag."""

    media_type: str
    sha256: str
    size_bytes: int

    @property
    def is_weights(self) -> bool:
        """Whether an engine loads it into memory."""
        return self.media_type in _WEIGHTS or self.media_type.startswith(_TENSOR)

    @property
    def is_model(self) -> bool:
        """Whether it is the GGUF file itself."""
        return self.media_type == _MODEL


def folder(root: Path) -> Path:
    """What OLLAMA_MODELS has to be."""
    return root / _FOLDER


def manifest_of(tag: OllamaTag, root: Path) -> Path:
    """Where the manifest of a tag lies, or would lie."""
    return folder(root) / _MANIFESTS / tag.host / tag.namespace / tag.name / tag.tag


def blob_of(layer: Layer, root: Path) -> Path:
    """Where a layer lies, or would lie."""
    return folder(root) / "blobs" / f"sha256-{layer.sha256}"


def parts_of(tag: OllamaTag, root: Path) -> Path:
    """Where what was begun of a tag lies."""
    return folder(root) / _PARTS / quote(str(tag), safe="")


def parse_manifest(text: bytes) -> list[Layer]:
    """The layers that a manifest names, its configuration among them. Raises ValueError."""
    try:
        told = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested without end") from None
    if not isinstance(told, dict) or not isinstance(told.get("layers"), list):
        raise ValueError("it names no layers")
    named = [_layer(layer) for layer in (*told["layers"], told.get("config")) if layer]
    return list({layer.sha256: layer for layer in reversed(named)}.values())[::-1]


def layers_of(tag: OllamaTag, root: Path) -> list[Layer]:
    """The layers of a tag that was pulled. Raises OSError, ValueError."""
    return parse_manifest(manifest_of(tag, root).read_bytes())


def is_whole(tag: OllamaTag, root: Path) -> bool:
    """Whether all of it is there. Others may have deleted blobs: they are looked at."""
    try:
        return all(is_there(layer, root) for layer in layers_of(tag, root))
    except (OSError, ValueError):
        return False


def is_there(layer: Layer, root: Path) -> bool:
    """Whether a layer was pulled, for this tag or another."""
    blob = blob_of(layer, root)
    return blob.is_file() and _size(blob) == layer.size_bytes


def keep(tag: OllamaTag, manifest: bytes, fetched: Iterable[Layer], root: Path) -> None:
    """Put what was `fetched` of a tag, which lies whole in `parts_of` it, where Ollama looks; the manifest last."""
    parts = parts_of(tag, root)
    for layer in fetched:
        blob = blob_of(layer, root)
        blob.parent.mkdir(parents=True, exist_ok=True)
        (parts / layer.sha256).replace(blob)
    target = manifest_of(tag, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = parts / "manifest"
    with made.open("wb") as out:
        out.write(manifest)
        out.flush()
        os.fsync(out.fileno())
    made.replace(target)
    shutil.rmtree(parts, ignore_errors=True)


def list_tags(root: Path) -> Iterator[tuple[OllamaTag, Path]]:
    """The tags that were pulled, and their manifests."""
    for manifest in sorted((folder(root) / _MANIFESTS).glob("*/*/*/*")):
        if manifest.is_file():
            yield OllamaTag(*manifest.parts[-4:]), manifest


def list_begun(root: Path) -> Iterator[tuple[str, Path]]:
    """The tags whose pull was broken off, and the folders of what is there of them."""
    for parts in sorted((folder(root) / _PARTS).glob("*")):
        yield unquote(parts.name), parts


def size_bytes(manifest: Path) -> int:
    """What the layers of a tag take; some may be another tag's as well."""
    return sum(layer.size_bytes for layer in _read(manifest))


def remove(tag: OllamaTag, root: Path) -> int | None:
    """Delete a tag and the layers that no other tag has; the bytes that this freed, None where it isn't there."""
    manifest, parts = manifest_of(tag, root), parts_of(tag, root)
    begun = [part for part in parts.glob("*") if part.is_file()]
    if not manifest.is_file() and not begun:
        return None
    freed = sum(part.stat().st_size for part in begun)
    shutil.rmtree(parts, ignore_errors=True)
    layers = _read(manifest)
    manifest.unlink(missing_ok=True)
    kept = {layer.sha256 for _, other in list_tags(root) for layer in _read(other)}
    for layer in layers:
        blob = blob_of(layer, root)
        if layer.sha256 not in kept and blob.is_file():
            freed += _size(blob)
            blob.unlink()
    for above in (manifest.parent, manifest.parent.parent, manifest.parent.parent.parent):
        if above.is_dir() and not any(above.iterdir()):
            above.rmdir()
    return freed


def _read(manifest: Path) -> list[Layer]:
    try:
        return parse_manifest(manifest.read_bytes())
    except (OSError, ValueError):
        return []


def _layer(told: Any) -> Layer:
    try:
        media_type, digest, size = told["mediaType"], told["digest"], told["size"]
        hexed = digest.removeprefix(_DIGEST)
        is_digest = digest.startswith(_DIGEST) and len(hexed) == 64 and not set(hexed) - set("0123456789abcdef")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a layer lacks {error}") from None
    if not is_digest or not isinstance(size, int) or size < 0 or not isinstance(media_type, str):
        raise ValueError("a layer has no digest or size that could be checked")
    return Layer(media_type, hexed, size)


def _size(path: Path) -> int:
    return path.stat().st_size

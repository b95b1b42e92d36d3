"""A registry that speaks Ollama's protocol: a manifest for each tag, and blobs by their sha256.

`MODELGRID_OLLAMA_REGISTRY` is asked instead of https://registry.ollama.ai, for a mirror; a tag may also name a host of
its own (``ollama:registry.example.com/team/model:tag``). Private models need Ollama itself, which has a key of its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelgrid.spec.source import OLLAMA_HOST, OllamaTag
from modelgrid.weights.choose import File
from modelgrid.weights.explain import Answer, WeightsError, explained, shown, too_many
from modelgrid.weights.hub import is_offline
from modelgrid.weights.layers import Layer, parse_manifest

REGISTRY: Final = "MODELGRID_OLLAMA_REGISTRY"
HEADERS: Final = {"User-Agent": "modelgrid", "Accept": "application/vnd.docker.distribution.manifest.v2+json"}

_LONGEST_MANIFEST: Final = 4 << 20
_LOOPBACK: Final = ("localhost", "127.0.0.1")


class Registry:
    """Where the layers of a tag come from."""

    setting = REGISTRY

    def __init__(self, tag: OllamaTag) -> None:
        self.tag = tag
        self.address = shown(_address(tag))

    def meaning(self, answer: Answer) -> str:
        tag = self.tag
        if answer.status == 404:
            return f"{self.address} has no {tag.namespace}/{tag.name}:{tag.tag} (check the spelling, and the tag)"
        if answer.status in (401, 403):
            return f"{self.address} has no such model, or it is private (for a private one: ollama pull)"
        if answer.status == 412:
            return f"{self.address} wants a newer client for it (update Ollama, and use: ollama pull)"
        if answer.status == 429:
            return too_many(answer, self.address)
        return f"{self.address} answered {answer.status} (try again later)"


@dataclass(frozen=True, slots=True)
class TagListing:
    """What is to be pulled of a tag."""

    tag: OllamaTag
    manifest: bytes  # as it came: Ollama compares its digest
    layers: Sequence[Layer]

    def file(self, layer: Layer) -> File:
        """A layer as a file."""
        return File(f"sha256:{layer.sha256[:12]}", layer.size_bytes, layer.sha256)

    def url(self, layer: Layer) -> str:
        """Where a layer is had."""
        return f"{_address(self.tag)}/v2/{self.tag.namespace}/{self.tag.name}/blobs/sha256:{layer.sha256}"


def list_layers(tag: OllamaTag, timeout_s: float) -> TagListing:
    """What would be pulled. Raises WeightsError."""
    if is_offline():
        raise WeightsError(f"cannot ask for {tag}: HF_HUB_OFFLINE is set (unset it, or use a local path)")
    import httpx

    registry = Registry(tag)
    url = f"{_address(tag)}/v2/{tag.namespace}/{tag.name}/manifests/{tag.tag}"
    with explained(f"ask for {tag}", registry):
        answer = httpx.get(url, headers=HEADERS, timeout=timeout_s, follow_redirects=True)
        if answer.status_code != 200:
            raise Answer(answer.status_code, retry_after=answer.headers.get("Retry-After", ""))
    try:
        if len(answer.content) > _LONGEST_MANIFEST:
            raise ValueError("it is longer than any")
        layers = parse_manifest(answer.content)
    except ValueError as error:
        raise WeightsError(f"cannot pull {tag}: {registry.address} sent no manifest: {error}") from None
    if not any(layer.is_weights for layer in layers):
        raise WeightsError(f"cannot pull {tag}: it has no weights (a tag of Ollama's cloud runs there only)")
    return TagListing(tag, answer.content, layers)


def _address(tag: OllamaTag) -> str:
    if tag.host == OLLAMA_HOST:
        return (os.environ.get(REGISTRY) or f"https://{OLLAMA_HOST}").rstrip("/")
    scheme = "http" if tag.host.partition(":")[0] in _LOOPBACK else "https"
    return f"{scheme}://{tag.host}"

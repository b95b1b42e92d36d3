"""What a model's source may be: a local path, a hub's model or one of its GGUF files, a tag of Ollama's, or a kind that
has no files of its own (``package:NAME``, ``stand-in``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

STAND_IN: Final = "stand-in"  # a text model that is made on the spot
PACKAGE: Final = "package:"  # followed by the name of a Python package that carries weights
OLLAMA: Final = "ollama:"  # followed by a tag of a registry of Ollama's: ollama:llama3.2:1b

GGUF: Final = ".gguf"

OLLAMA_HOST: Final = "registry.ollama.ai"
_OLLAMA_NAMESPACE: Final = "library"
_OLLAMA_TAG: Final = "latest"

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")
_PICK = re.compile(r"[A-Za-z0-9][\w .()+-]*(?:/[A-Za-z0-9][\w .()+-]*){0,4}")
# The parts of a name of Ollama's (ollama/types/model/name.go).
_HOST = re.compile(r"[A-Za-z0-9_][\w.:-]{0,349}", re.ASCII)
_NAMESPACE = re.compile(r"[A-Za-z0-9_][\w-]{0,79}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,79}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model of a hub: all of it, or what is picked of its GGUF files. Safe as parts of a path."""

    repository: str  # OWNER/NAME
    pick: str | None = None  # a file's name, or a quantisation: Q4_K_M

    def __str__(self) -> str:
        return f"{self.repository}:{self.pick}" if self.pick else self.repository


@dataclass(frozen=True, slots=True)
class OllamaTag:
    """A model of a registry that speaks Ollama's protocol. Each part is safe as a part of a path."""

    host: str
    namespace: str
    name: str
    tag: str

    def __str__(self) -> str:
        """As Ollama lists it: what is usual is left out."""
        host = f"{self.host}/" if self.host != OLLAMA_HOST else ""
        namespace = f"{self.namespace}/" if host or self.namespace != _OLLAMA_NAMESPACE else ""
        return f"{OLLAMA}{host}{namespace}{self.name}:{self.tag}"


def parse_source(source: str) -> HubModel | OllamaTag | None:
    """What has to be pulled for it; None where the source is of another kind.

    ``OWNER/NAME``, ``OWNER/NAME:FILE.gguf``, ``OWNER/NAME:Q4_K_M`` and ``ollama:NAME:TAG``. A ``NAME:TAG`` without an
    owner is a tag of Ollama's as well: no hub has such names.
    """
    if source == STAND_IN or source.startswith(PACKAGE) or is_path(source):
        return None
    if source.startswith(OLLAMA):
        return _ollama_tag(source.removeprefix(OLLAMA))
    repository, colon, pick = source.partition(":")
    if colon and "/" not in repository:
        return _ollama_tag(source)
    if not _HUB_ID.fullmatch(repository) or ".." in repository or "--" in repository:
        return None
    if not colon:
        return HubModel(repository)
    if not _PICK.fullmatch(pick) or ".." in pick:
        return None
    is_file = pick.lower().endswith(GGUF)
    return HubModel(repository, pick if is_file else pick.upper()) if is_file or "/" not in pick else None


def is_path(source: str) -> bool:
    """Whether it is a local path."""
    return source.startswith("/")


def _ollama_tag(written: str) -> OllamaTag | None:
    path, colon, tag = written.rpartition(":")
    if not colon or "/" in tag:
        path, tag = written, _OLLAMA_TAG
    *before, name = path.split("/")
    namespace = before.pop() if before else _OLLAMA_NAMESPACE
    host = before.pop() if before else OLLAMA_HOST
    fits = (_HOST.fullmatch(host), _NAMESPACE.fullmatch(namespace), _NAME.fullmatch(name), _NAME.fullmatch(tag))
    return OllamaTag(host, namespace, name, tag) if all(fits) and not before else None

"""The table of endpoints: which path carries the model where, what it asks of an engine, whether it may stream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from modelgrid.spec.operations import CHAT, COMPLETIONS, EMBEDDINGS


class Act(StrEnum):
    """What an endpoint does."""

    RELAY = "relay"  # JSON in, the engine's answer out; the model stands in the body
    PLAIN = "plain"  # text in, text out; the model stands in the path
    MODELS = "models"
    MODEL = "model"  # the model stands in the path
    HEALTH = "health"
    ROOT = "root"
    SOCKET = "socket"  # a WebSocket; the model stands in the query


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. ``{model}`` ends a path and matches slashes too."""

    method: str  # HEAD works where GET does
    path: str
    act: Act
    operation: str = ""  # what it asks of an engine
    upstream: bytes = b""  # the engine's path, below its base URL
    uploads: bool = False  # a form is relayed while it comes
    streams: bool = False  # the answer may be a stream of events
    open: bool = False  # answered without a key


# fmt: off
ENDPOINTS: Final = (
    Endpoint("POST", "/v1/chat/completions", Act.RELAY,  CHAT,        b"/chat/completions", streams=True),
    Endpoint("POST", "/v1/completions",      Act.RELAY,  COMPLETIONS, b"/completions",      streams=True),
    Endpoint("POST", "/v1/embeddings",       Act.RELAY,  EMBEDDINGS,  b"/embeddings"),
    Endpoint("POST", "/v1/chat/{model}",     Act.PLAIN,  CHAT,        b"/chat/completions", streams=True),
    Endpoint("GET",  "/v1/models",           Act.MODELS),
    Endpoint("GET",  "/v1/models/{model}",   Act.MODEL),
    Endpoint("GET",  "/health",              Act.HEALTH, open=True),
    Endpoint("GET",  "/",                    Act.ROOT,   open=True),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Found:
    """A path's endpoint, and the model where the path names it."""

    endpoint: Endpoint
    model: str | None = None


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """The path is there, for other methods."""

    allow: tuple[str, ...]


def find_endpoint(method: str, path: str) -> Found | WrongMethod | None:
    """What a request's method and (still percent-encoded) path mean. Exact paths win over ``{model}``."""
    if method == "HEAD":
        method = "GET"
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    at_path = [row for row in ENDPOINTS if _matches(row, path)]
    exact = [row for row in at_path if "{" not in row.path]
    for row in exact or at_path:
        if row.method == method:
            return Found(row, _model(row, path))
    if at_path:
        return WrongMethod(_methods(exact or at_path))
    return None


_EXACT: Final = {(row.method, row.path): Found(row) for row in ENDPOINTS if "{" not in row.path}


def _matches(row: Endpoint, path: str) -> bool:
    if "{" in row.path:
        prefix = row.path.partition("{")[0]
        return path.startswith(prefix) and len(path) > len(prefix)
    return path == row.path or path == row.path + "/"


def _model(row: Endpoint, path: str) -> str | None:
    prefix, brace, _ = row.path.partition("{")
    return unquote(path.removeprefix(prefix)) if brace else None


def _methods(rows: list[Endpoint]) -> tuple[str, ...]:
    methods = {row.method for row in rows}
    return tuple(sorted(methods | {"HEAD"} if "GET" in methods else methods))

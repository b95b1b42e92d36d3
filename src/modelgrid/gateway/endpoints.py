"""The table of endpoints: which path carries the model where, what it asks of an engine, whether it may stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from modelgrid.spec import Scope
from modelgrid.spec.operations import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    IMAGE_EDITS,
    IMAGE_VARIATIONS,
    IMAGES,
    INFILL,
    MESSAGES,
    MODERATIONS,
    MUSIC,
    POOLING,
    REALTIME,
    RERANK,
    RESPONSES,
    SCORE,
    SPEECH,
    TOKENIZE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VIDEOS,
)


class Act(StrEnum):
    """What an endpoint does."""

    RELAY = "relay"  # the engine's answer to a body in which the model stands: JSON, or a form
    OBJECT = "object"  # the engine's answer about what it made before; no model is named, the id tells it
    SOCKET = "socket"  # a WebSocket; the model stands in the query
    OWN = "own"  # the engine's answer at a path that its model has for itself
    PLAIN = "plain"  # text in, text out; the model stands in the path
    MODELS = "models"
    MODEL = "model"  # the model stands in the path
    CONTROL = "control"  # the controller's answer
    ADMIN = "admin"  # the same, of the control API
    HEALTH = "health"
    ROOT = "root"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. ``{model}`` ends a path and matches slashes too; ``{id}`` is one segment of it. ``{rest}`` ends it as
    well: segments that are what they look like, with nothing to be resolved on the way."""

    method: str  # HEAD works where GET does
    path: str
    act: Act
    operation: str = ""  # what it asks of an engine
    streams: bool = False  # the answer may be a stream of events
    uploads: bool = False  # a form (multipart/form-data) is relayed while it comes
    open: bool = False  # answered without a key


# fmt: off
ENDPOINTS: Final = (
    Endpoint("POST",   "/v1/chat/completions",          Act.RELAY,  CHAT,             streams=True),
    Endpoint("POST",   "/v1/completions",               Act.RELAY,  COMPLETIONS,      streams=True),
    Endpoint("POST",   "/v1/responses",                 Act.RELAY,  RESPONSES,        streams=True),
    Endpoint("GET",    "/v1/responses/{id}",            Act.OBJECT, RESPONSES,        streams=True),
    Endpoint("DELETE", "/v1/responses/{id}",            Act.OBJECT, RESPONSES),
    Endpoint("POST",   "/v1/responses/{id}/cancel",     Act.OBJECT, RESPONSES),
    Endpoint("GET",    "/v1/responses/{id}/input_items", Act.OBJECT, RESPONSES),
    Endpoint("POST",   "/v1/messages",                  Act.RELAY,  MESSAGES,         streams=True),
    Endpoint("POST",   "/v1/messages/count_tokens",     Act.RELAY,  COUNT_TOKENS),
    Endpoint("POST",   "/infill",                       Act.RELAY,  INFILL,           streams=True),
    Endpoint("POST",   "/v1/embeddings",                Act.RELAY,  EMBEDDINGS),
    Endpoint("POST",   "/v1/rerank",                    Act.RELAY,  RERANK),
    Endpoint("POST",   "/v2/rerank",                    Act.RELAY,  RERANK),
    Endpoint("POST",   "/rerank",                       Act.RELAY,  RERANK),
    Endpoint("POST",   "/v1/score",                     Act.RELAY,  SCORE),
    Endpoint("POST",   "/score",                        Act.RELAY,  SCORE),
    Endpoint("POST",   "/classify",                     Act.RELAY,  CLASSIFY),
    Endpoint("POST",   "/pooling",                      Act.RELAY,  POOLING),
    Endpoint("POST",   "/v1/moderations",               Act.RELAY,  MODERATIONS),
    Endpoint("POST",   "/tokenize",                     Act.RELAY,  TOKENIZE),
    Endpoint("POST",   "/detokenize",                   Act.RELAY,  DETOKENIZE),
    Endpoint("POST",   "/v1/images/generations",        Act.RELAY,  IMAGES,           streams=True),
    Endpoint("POST",   "/v1/images/edits",              Act.RELAY,  IMAGE_EDITS,      streams=True, uploads=True),
    Endpoint("POST",   "/v1/images/variations",         Act.RELAY,  IMAGE_VARIATIONS, uploads=True),
    Endpoint("POST",   "/v1/audio/speech",              Act.RELAY,  SPEECH,           streams=True),
    Endpoint("GET",    "/v1/audio/voices",              Act.OBJECT, SPEECH),
    Endpoint("POST",   "/v1/audio/transcriptions",      Act.RELAY,  TRANSCRIPTIONS,   streams=True, uploads=True),
    Endpoint("POST",   "/v1/audio/translations",        Act.RELAY,  TRANSLATIONS,     streams=True, uploads=True),
    Endpoint("POST",   "/v1/audio/music",               Act.RELAY,  MUSIC),
    Endpoint("POST",   "/v1/videos",                    Act.RELAY,  VIDEOS,           uploads=True),
    Endpoint("GET",    "/v1/videos",                    Act.OBJECT, VIDEOS),
    Endpoint("GET",    "/v1/videos/{id}",               Act.OBJECT, VIDEOS),
    Endpoint("DELETE", "/v1/videos/{id}",               Act.OBJECT, VIDEOS),
    Endpoint("GET",    "/v1/videos/{id}/content",       Act.OBJECT, VIDEOS),
    Endpoint("POST",   "/v1/videos/{id}/remix",         Act.OBJECT, VIDEOS),
    Endpoint("GET",    "/v1/realtime",                  Act.SOCKET, REALTIME),
    Endpoint("POST",   "/v1/chat/{model}",              Act.PLAIN,  CHAT,             streams=True),
    Endpoint("GET",    "/v1/models",                    Act.MODELS),
    Endpoint("GET",    "/v1/models/{model}",            Act.MODEL),
    Endpoint("GET",    "/metrics",                      Act.CONTROL),
    Endpoint("GET",    "/control/v1/{rest}",            Act.ADMIN),
    Endpoint("POST",   "/control/v1/{rest}",            Act.ADMIN),
    Endpoint("PUT",    "/control/v1/{rest}",            Act.ADMIN),
    Endpoint("DELETE", "/control/v1/{rest}",            Act.ADMIN),
    Endpoint("GET",    "/health",                       Act.HEALTH, open=True),
    Endpoint("GET",    "/",                             Act.ROOT,   open=True),
)
# fmt: on


_OF_CALLERS: Final = frozenset({Scope.CALLER})
_SCOPES: Final = {Act.CONTROL: frozenset({Scope.METRICS, Scope.ADMIN}), Act.ADMIN: frozenset({Scope.ADMIN})}


class Found:
    """What a method and a path mean, and how the engine is asked."""

    __slots__ = (
        "act",
        "endpoint",
        "is_anthropic",
        "is_relayed",
        "is_rooted",
        "model",
        "operation",
        "path",
        "scopes",
        "verb",
    )

    def __init__(self, endpoint: Endpoint, path: str, model: str = "") -> None:
        self.endpoint = endpoint
        self.act = endpoint.act
        self.is_relayed = endpoint.act is Act.RELAY
        self.operation = endpoint.operation
        self.verb = endpoint.method.encode()
        self.model = model  # where the path names it
        # Engines have a base URL, which ends in a version; what is not under /v1 here stands beside that.
        self.is_rooted = not path.startswith("/v1/")
        self.path = (path if self.is_rooted else path.removeprefix("/v1")).encode("latin-1")
        if endpoint.act is Act.PLAIN:
            self.path = b"/chat/completions"
        self.is_anthropic = endpoint.path.startswith("/v1/messages")
        self.scopes = _SCOPES.get(endpoint.act, _OF_CALLERS)  # a key needs one of them


@dataclass(frozen=True, slots=True)
class WrongMethod:
    """The path is there, for other methods."""

    allow: tuple[str, ...]


def find_endpoint(method: str, path: str) -> Found | WrongMethod | None:
    """What a request's method and (still percent-encoded) path mean. Exact paths win over ``{id}`` and ``{model}``."""
    if method == "HEAD":
        method = "GET"
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    at_path = [row for row in ENDPOINTS if _PATTERNS[row.path].fullmatch(path)]
    exact = [row for row in at_path if "{" not in row.path]
    for row in exact or at_path:
        if row.method == method:
            model = _PATTERNS[row.path].fullmatch(path)
            named = model["model"] if model is not None and "{model}" in row.path else ""
            return Found(row, path.rstrip("/") or "/", unquote(named))
    if at_path:
        return WrongMethod(_methods(exact or at_path))
    return None


def _pattern(path: str) -> re.Pattern[str]:
    # An id is what ids are made of, and no dots alone: a path that means another one to an engine is not in the table.
    pattern = (
        re.escape(path)
        .replace(r"\{id\}", r"(?!\.+/?$|\.+/)[A-Za-z0-9._~:-]+")
        .replace(r"\{model\}", "(?P<model>.+)")
        .replace(r"\{rest\}", f"{_SEGMENT}(?:/{_SEGMENT})*")
    )
    is_whole = "{model}" in path or "{rest}" in path or path == "/"
    return re.compile(pattern if is_whole else f"{pattern}/?")


# No empty one, and none of dots alone, spelled as they are or percent-encoded: those mean another path to somebody.
_SEGMENT: Final = r"(?!(?:\.|%2[eE])+(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+"


_PATTERNS: Final = {row.path: _pattern(row.path) for row in ENDPOINTS}
_EXACT: Final = {(row.method, row.path): Found(row, row.path) for row in ENDPOINTS if "{" not in row.path}


def _methods(rows: list[Endpoint]) -> tuple[str, ...]:
    methods = {row.method for row in rows}
    return tuple(sorted(methods | {"HEAD"} if "GET" in methods else methods))

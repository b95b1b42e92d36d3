"""A routing table as the request path reads it: by name, with what can be prepared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

import msgspec

from modelgrid.gateway.access import Access
from modelgrid.spec import Route, RoutingTable, Target


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection leads."""

    host: str
    port: int
    is_tls: bool


class Destination(msgspec.Struct, frozen=True):
    """A target, ready to be sent to. `lines` may hold the engine's key."""

    target: Target
    origin: Origin
    path: bytes
    lines: bytes  # the headers that each request to it has

    def __repr__(self) -> str:
        return f"Destination({self.target!r})"


class Routes:
    """One table. It never changes; a newer one takes its place."""

    def __init__(self, table: RoutingTable) -> None:
        self.table = table
        self.number = table.number
        self.access = Access(table.keys)
        self._by_name = _by_name(table.routes)
        self._destinations = _destinations(table.routes)

    def find(self, name: str) -> Route | None:
        """The route of a model's name or alias."""
        return self._by_name.get(name)

    def destination(self, target: Target) -> Destination:
        """How to reach a target of this table."""
        return self._destinations[target.replica]

    @cached_property
    def origins(self) -> frozenset[Origin]:
        """Where connections may lead."""
        return frozenset(destination.origin for destination in self._destinations.values())

    @cached_property
    def listing(self) -> bytes:
        """What /v1/models answers."""
        return msgspec.json.encode({"object": "list", "data": [_describe(route) for route in self.table.routes]})


def describe_model(route: Route) -> bytes:
    """What /v1/models/{id} answers."""
    return msgspec.json.encode(_describe(route))


def _describe(route: Route) -> dict[str, object]:
    return {
        "id": route.model,
        "object": "model",
        "created": route.created,
        "owned_by": "modelgrid",
        "aliases": route.aliases,
        "operations": route.operations,
        "state": route.state,
    }


def _by_name(routes: tuple[Route, ...]) -> Mapping[str, Route]:
    aliases = {alias: route for route in reversed(routes) for alias in route.aliases}
    return aliases | {route.model: route for route in routes}


def _destinations(routes: tuple[Route, ...]) -> Mapping[str, Destination]:
    return {target.replica: _destination(target) for route in routes for target in route.targets}


def _destination(target: Target) -> Destination:
    url = urlsplit(target.url)
    is_tls = url.scheme == "https"
    origin = Origin(url.hostname or "", url.port or (443 if is_tls else 80), is_tls)
    lines = f"host: {url.netloc.rpartition('@')[2]}\r\n"
    if target.key is not None:
        lines += f"authorization: Bearer {target.key}\r\n"
    return Destination(target, origin, url.path.rstrip("/").encode(), lines.encode())

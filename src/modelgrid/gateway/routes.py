"""A routing table as the request path reads it: by name, with what can be prepared once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from urllib.parse import urlsplit

import msgspec

from modelgrid.gateway.access import Access, Caller
from modelgrid.gateway.accounts import Account
from modelgrid.gateway.affinity import Affinity, affinity
from modelgrid.gateway.body import Edits
from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.meters import Meter, Meters
from modelgrid.gateway.quota import Gate
from modelgrid.gateway.standing import Standing
from modelgrid.gateway.tally import Tally
from modelgrid.gateway.upstream import Origin
from modelgrid.gateway.virtual import Options
from modelgrid.spec import Choice, Parameters, Route, RoutingTable, Target


class Destination:
    """A target, ready to be sent to. `lines` may hold the engine's key, so it is never logged."""

    __slots__ = (
        "_edits",
        "_parameters",
        "base",
        "edits",
        "is_plain",
        "lines",
        "origin",
        "root",
        "served",
    )

    def __init__(
        self, target: Target, parameters: Parameters | None, origins: Callable[[str, int, bool], Origin]
    ) -> None:
        url = urlsplit(target.url)
        is_tls = url.scheme == "https"
        self.origin = origins(url.hostname or "", url.port or (443 if is_tls else 80), is_tls)
        self.base = url.path.rstrip("/").encode()
        self.root = self.base.removesuffix(b"/v1")  # above the version, where engines have what OpenAI has not
        lines = f"host: {url.netloc.rpartition('@')[2]}\r\n"
        if target.key is not None:
            lines += f"authorization: Bearer {target.key}\r\n"
        self.lines = lines.encode()  # the headers that each request to it has
        self.served = target.model
        self.is_plain = parameters is None  # a body is changed for the model's name only
        self._parameters = parameters
        self.edits = Edits(target.model, *([] if parameters is None else [parameters]))
        self._edits: dict[int, Edits] = {}

    def __repr__(self) -> str:
        return f"Destination({self.served!r} at {self.origin!r})"

    def edits_behind(self, choice: Choice) -> Edits:
        """For a request that came by a virtual model, which may have parameters of its own for this one."""
        if choice.parameters is None:
            return self.edits
        edits = self._edits.get(id(choice))
        if edits is None:
            both = (choice.parameters,) if self._parameters is None else (choice.parameters, self._parameters)
            edits = self._edits[id(choice)] = Edits(self.served, *both)
        return edits


class Books:
    """Where requests are counted: for metrics, and for what is paid."""

    __slots__ = ("account", "meter")

    def __init__(self, meter: Meter, account: Account) -> None:
        self.meter = meter
        self.account = account


class Lane:
    """One route of one table."""

    __slots__ = (
        "_books",
        "_meters",
        "affinity",
        "gate",
        "model",
        "operations",
        "options",
        "route",
        "slack",
        "slot",
        "standings",
        "tally",
    )

    def __init__(self, route: Route, standings: tuple[Standing, ...], gate: Gate | None, meters: Meters) -> None:
        self.route = route
        self.model = route.model
        self.slot = route.slot
        self.operations = frozenset(route.operations)
        self.standings = standings
        self.gate = gate
        self.affinity: Affinity | None = affinity(route.routing)
        self.slack = route.routing.slack
        self.options: Options | None = None  # the models behind a virtual one
        self.tally: Tally = meters.tallies.of(route.model)
        self._meters = meters
        self._books: dict[tuple[str, Caller | None], Books] = {}

    def __repr__(self) -> str:
        return f"Lane({self.model!r})"

    def books(self, operation: str, caller: Caller | None) -> Books:
        """Where requests of `caller` are counted."""
        books = self._books.get((operation, caller))
        if books is None:
            meter = self._meters.of(self.model, operation, caller.name if caller else "")
            account = self._meters.accounts.of(caller.id if caller else "", self.model, operation)
            books = self._books[operation, caller] = Books(meter, account)
        return books


class Routes:
    """One table. It never changes; a newer one takes its place."""

    def __init__(
        self,
        table: RoutingTable,
        standings: Mapping[str, tuple[Standing, ...]],
        origins: Callable[[str, int, bool], Origin],
        ledger: Ledger,
        meters: Meters,
        before: Routes | None = None,
    ) -> None:
        self.table = table
        self.number = table.number
        self.access: Access = Access(table.keys, ledger, None if before is None else before.access, table.groups)
        self.origins: set[Origin] = set()
        self.lanes: dict[str, Lane] = {}
        for route in table.routes:
            own = standings[route.model]
            for standing, target in zip(own, route.targets, strict=True):
                standing.destination = Destination(target, route.parameters, origins)
                self.origins.add(standing.destination.origin)
            old = None if before is None else before.lanes.get(route.model)
            self.lanes[route.model] = Lane(route, own, _gate(route, ledger, old), meters)
        for route in table.routes:
            if route.virtual is not None:
                self.lanes[route.model].options = Options(route.virtual, self._route, self._standings)
        aliases = {alias: self.lanes[route.model] for route in reversed(table.routes) for alias in route.aliases}
        self.by_name = aliases | self.lanes
        self._by_endpoint = {route.endpoint: self.lanes[route.model] for route in table.routes if route.endpoint}

    def at_endpoint(self, path: str) -> Lane | None:
        """By a path that a model has of its own."""
        return self._by_endpoint.get(path)

    def allowed(self, caller: Caller | None) -> list[Route]:
        """Those that a caller may use, and may know of."""
        return [route for route in self.table.routes if caller is None or caller.may_use(route.model)]

    @cached_property
    def listing(self) -> bytes:
        """What /v1/models answers to who may use all of them."""
        return self.list_for(None)

    def list_for(self, caller: Caller | None) -> bytes:
        """What /v1/models answers."""
        seen = [_describe(route) for route in self.allowed(caller)]
        return msgspec.json.encode({"object": "list", "data": seen})

    def _route(self, model: str) -> Route | None:
        lane = self.lanes.get(model)
        return None if lane is None else lane.route

    def _standings(self, model: str) -> tuple[Standing, ...]:
        return self.lanes[model].standings


def describe_model(route: Route) -> bytes:
    """What /v1/models/{id} answers."""
    return msgspec.json.encode(_describe(route))


def _describe(route: Route) -> dict[str, object]:
    described: dict[str, object] = {
        "id": route.model,
        "object": "model",
        "created": route.created,
        "owned_by": "modelgrid",
        "aliases": route.aliases,
        "operations": route.operations,
        "state": route.state,
    }
    if route.virtual is not None:
        described["models"] = [choice.model for choice in route.virtual.choices]
    return described


def _gate(route: Route, ledger: Ledger, before: Lane | None) -> Gate | None:
    if route.quota is None:
        return None
    if before is not None and before.gate is not None:
        return before.gate.again(route.slot, route.quota)
    return Gate(ledger, route.slot, route.quota)

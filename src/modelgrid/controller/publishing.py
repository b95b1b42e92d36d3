"""The routing table as gateways get it: numbered, told when it says something new, and kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from msgspec import structs

from modelgrid.config import Config
from modelgrid.controller import table as tables
from modelgrid.controller.slots import Named, allot, recovered
from modelgrid.controller.tablefile import read_table, write_table
from modelgrid.spec import AccessKey, Fleet, KeyGroup, Launch, ModelName, Refuse, ReplicaId, Running, Seen, Target
from modelgrid.spec.messages import SLOTS, RoutingTable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """What a table is made of, beside the fleet."""

    config: Config
    keys: Sequence[AccessKey]  # their models as somebody wrote them
    groups: Sequence[KeyGroup]
    names: Mapping[str, str]  # every name that callers may use, with the model's own
    seen: Mapping[ReplicaId, Seen]
    launched: Mapping[ReplicaId, Launch]
    refusals: Mapping[ModelName, Refuse]
    ended: Mapping[ModelName, str]  # why a model's last replica went


class Publishing:
    """Makes tables. `number` is the last one's, and goes on from an earlier controller's: `saved`, or the file's."""

    def __init__(self, path: Path, publish: Callable[[RoutingTable], None], saved: int, started: float) -> None:
        last = read_table(path)
        self.number = max(saved, last.number if last else 0)
        self._path = path
        self._tell = publish
        self._started = started
        self._slots = recovered(last)
        self._is_short_of_slots = False
        self._table: RoutingTable | None = None
        self._routed_in: dict[str, int] = {}
        self._created: dict[ModelName, int] = {}

    def routed_in(self, replica: ReplicaId) -> int:
        """The table in which routing to a replica began or ended."""
        return self._routed_in.get(replica, 0)

    def publish(self, fleet: Fleet, known: Known) -> None:
        """Tell gateways of a new table, where it differs from the last."""
        self._slots = allot(self._slots, self._named(fleet, known))
        for name in known.config.names:
            self._created.setdefault(name, int(self._started))
        targets = self._targets(fleet, known)
        routes = tables.routes(
            fleet, targets, known.refusals, self._created, known.ended, known.config.virtual, self._slots
        )
        keys = self._access_keys(known)
        groups = tuple(structs.replace(one, slot=self._slots.of("group", one.name)) for one in known.groups)
        ids = frozenset[str](replica.id for replica in fleet.replicas)
        self._routed_in = {id: number for id, number in self._routed_in.items() if id in ids}
        if tables.same(self._table, routes, keys, groups):
            return
        self.number += 1
        # Nobody knows what the table of an earlier controller said.
        changed = ids if self._table is None else tables.routed(self._table.routes) ^ tables.routed(routes)
        self._routed_in |= dict.fromkeys(changed, self.number)
        self._table = RoutingTable(
            number=self.number, routes=routes, keys=keys, groups=groups, last_slot=self._slots.last
        )
        self._tell(self._table)
        try:
            write_table(self._path, self._table)
        except OSError as error:  # it is for workers that start while nobody is here: no reason not to be here
            log.error("table.not_written", path=str(self._path), why=str(error))

    def _targets(self, fleet: Fleet, known: Known) -> dict[ReplicaId, Target]:
        targets = {}
        for replica in fleet.replicas:
            seen, launch = known.seen.get(replica.id), known.launched.get(replica.id)
            if launch is not None and seen is not None and isinstance(seen.state, Running):
                slot = self._slots.of("replica", replica.id)
                targets[replica.id] = Target(
                    replica=replica.id, url=seen.state.url, model=launch.served, key=launch.key, slot=slot
                )
        return targets

    def _access_keys(self, known: Known) -> tuple[AccessKey, ...]:
        """The keys as workers read them: their models by name, where an alias was given."""
        names = known.names
        return tuple(
            structs.replace(
                key,
                slot=self._slots.of("key", key.id),
                models=None if key.models is None else tuple({names.get(name, name): None for name in key.models}),
            )
            for key in known.keys
        )

    def _named(self, fleet: Fleet, known: Known) -> list[Named]:
        """All that workers count for. Replicas also while they are no targets: what is in flight on them counts."""
        named: list[Named] = [("model", name) for name in known.config.names]
        named += [("key", key.id) for key in known.keys]
        named += [("group", group.name) for group in known.groups]
        named += [("replica", replica.id) for replica in fleet.replicas]
        is_short = len(named) > SLOTS
        if is_short and not self._is_short_of_slots:
            log.warning("table.out_of_slots", names=len(named), slots=SLOTS, why="each worker counts for itself")
        self._is_short_of_slots = is_short
        return named

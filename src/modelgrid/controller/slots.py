"""Slots: small numbers for names, under which gateway workers count together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modelgrid.spec import RoutingTable
from modelgrid.spec.messages import SLOTS

Named = tuple[str, str]  # what it is, and its id: ("model", "qwen")


@dataclass(frozen=True, slots=True)
class Slots:
    """Who holds which slot, and the one that was handed out last."""

    held: Mapping[Named, int] = field(default_factory=dict)
    last: int = 0

    def of(self, kind: str, id: str) -> int:
        """The slot of a name; 0 where there was none left for it."""
        return self.held.get((kind, id), 0)


def allot(slots: Slots, names: Iterable[Named], size: int = SLOTS) -> Slots:
    """`names` with a slot each, from 1 to `size`: a name that has one keeps it, one that is not named gives it back.

    The next free one after the last is handed out, so that a freed one is taken again as late as can be: a worker
    that acts on an older table may still count under it.
    """
    wanted = list(dict.fromkeys(names))
    held = {name: slots.held[name] for name in wanted if name in slots.held}
    taken = set(held.values())
    last = slots.last
    for name in wanted:
        if name in held:
            continue
        if len(taken) >= size:
            break
        last = _next_free(last, taken, size)
        held[name] = last
        taken.add(last)
    return Slots(held, last)


def recovered(table: RoutingTable | None) -> Slots:
    """The slots that an earlier controller's last table shows; none without one."""
    if table is None:
        return Slots()
    shown = [(("key", key.id), key.slot) for key in table.keys]
    shown += [(("group", group.name), group.slot) for group in table.groups]
    for route in table.routes:
        shown.append((("model", route.model), route.slot))
        shown += [(("replica", target.replica), target.slot) for target in route.targets]
    held: dict[Named, int] = {}
    taken: set[int] = set()
    for name, slot in shown:
        if 0 < slot <= SLOTS and slot not in taken:
            held[name] = slot
            taken.add(slot)
    return Slots(held, min(max(table.last_slot, 0), SLOTS))


def _next_free(last: int, taken: set[int], size: int) -> int:
    found = last
    while True:
        found = found % size + 1
        if found not in taken:
            return found

"""Which replica a request goes to. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from modelgrid.spec import Target


def choose(
    targets: Sequence[Target], in_flight: Mapping[str, int], suspects: Container[str], turn: int
) -> Target | None:
    """The target with the least in flight, without suspects; `turn` goes round among equals."""
    best: list[Target] = []
    least = 0
    for target in targets:
        if target.replica in suspects:
            continue
        count = in_flight.get(target.replica, 0)
        if not best or count < least:
            best, least = [target], count
        elif count == least:
            best.append(target)
    return best[turn % len(best)] if best else None

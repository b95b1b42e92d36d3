"""Which replica a request goes to: the one with the least in flight, or the one that its key leads to. Pure.

A key finds its replica by rendezvous: each replica draws a number for the key, and the highest has it. That takes no
memory, and when a replica comes or goes, only the keys that it gets or had move. A replica that has more in flight than
`slack` times the mean, and one, hands over to the next highest: a busy conversation doesn't bury its replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from modelgrid.gateway.affinity import PRIME
from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.standing import Standing

_MANY: Final = 1 << 62  # more than anyone has in flight


def pick(standings: Sequence[Standing], ledger: Ledger, key: int | None = None, slack: float = 1.5) -> Standing | None:
    """The one of a model's replicas that a request goes to; None where none can be trusted now.

    A replica that is left alone for its errors is better than none.
    """
    if len(standings) == 1 and not standings[0].breaker.is_out:
        return standings[0]
    if key is not None:
        found = _by_key(standings, ledger, key, slack)
    elif ledger.is_alone:
        found = _least(standings)
    else:
        found = _least_of_all(standings, ledger)
    if found is None:
        return _least([standing for standing in standings if standing.breaker.is_outlier], are_out=True)
    return found


def in_flight(standing: Standing, ledger: Ledger) -> int:
    """What all workers have in flight at a replica."""
    return standing.in_flight if ledger.is_alone else standing.in_flight + ledger.elsewhere(standing.slot)


def _least(standings: Sequence[Standing], are_out: bool = False) -> Standing | None:
    """The least in flight here; among equals the one whose last turn is longest ago."""
    best = None
    least = _MANY
    turn = 0
    for standing in standings:
        count = standing.in_flight
        if (count < least or (count == least and standing.turn < turn)) and standing.breaker.is_out is are_out:
            best, least, turn = standing, count, standing.turn
    return best


def _least_of_all(standings: Sequence[Standing], ledger: Ledger) -> Standing | None:
    best = None
    least = _MANY
    turn = 0
    elsewhere = ledger.elsewhere
    for standing in standings:
        if standing.breaker.is_out:
            continue
        count = standing.in_flight + elsewhere(standing.slot)
        if count < least or (count == least and standing.turn < turn):
            best, least, turn = standing, count, standing.turn
    return best


def _by_key(standings: Sequence[Standing], ledger: Ledger, key: int, slack: float) -> Standing | None:
    best = None
    highest = -1
    for standing in standings:
        # Both numbers are digests, so their product modulo a prime is as good as a digest of both, and far cheaper.
        drawn = key * standing.seed % PRIME
        if drawn > highest and not standing.breaker.is_out:
            best, highest = standing, drawn
    if best is None or in_flight(best, ledger) <= 1:
        return best
    return _within_bound(standings, ledger, key, slack, best)


def _within_bound(
    standings: Sequence[Standing], ledger: Ledger, key: int, slack: float, best: Standing
) -> Standing | None:
    serving = [standing for standing in standings if not standing.breaker.is_out]
    if ledger.is_alone:
        counts = [standing.in_flight for standing in serving]
    else:
        counts = [standing.in_flight + ledger.elsewhere(standing.slot) for standing in serving]
    bound = slack * sum(counts) / len(serving) + 1
    if counts[serving.index(best)] <= bound:
        return best
    roomy = [standing for standing, count in zip(serving, counts, strict=True) if count <= bound]
    if not roomy:  # a slack below one may leave nobody
        return _least_of_all(serving, ledger)
    return max(roomy, key=lambda standing: key * standing.seed % PRIME)

"""Which of the models behind a virtual one a request is tried with, and in which order. Pure.

`first`: the first in order of preference that is warm (a replica of it can be chosen now) and has room. Where none has
room, the warm one with the least to do for each replica; where none is warm, the first, and the request waits for it.
So a model that is preferred and cold stays cold while another one serves: who asks for a virtual model asks for an
answer soon, and a start could push out what is used. Who wants the preferred model to be up gives it a replica that
stays (``min: 1``), or names it.

`weight`: a model gets its weight's share of the requests, cold or warm, for a share that only warm models get would
never start the new one. With a key the share is of sessions: each stays with its model. One that is full hands on.

A model that is unavailable, or whose engine doesn't serve what is asked for, is never tried while another is there.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from math import inf, log

from modelgrid.gateway.affinity import PRIME, digest
from modelgrid.gateway.choose import in_flight
from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.standing import Standing
from modelgrid.spec import Choice, Route, Virtual


class Option:
    """One of the models behind a virtual one, in one table."""

    __slots__ = ("choice", "is_unavailable", "operations", "route", "seed", "standings")

    def __init__(self, choice: Choice, route: Route, standings: tuple[Standing, ...]) -> None:
        self.choice = choice
        self.route = route
        self.standings = standings
        self.operations = frozenset(route.operations)
        self.is_unavailable = route.unavailable is not None and not route.targets
        self.seed = digest(route.model.encode())

    def __repr__(self) -> str:
        return f"Option({self.route.model!r})"


class Options:
    """All of them. `find` knows the routes by name, `standings` their replicas.

    What isn't there (any more), and what is virtual itself, is left out.
    """

    def __init__(
        self, virtual: Virtual, find: Callable[[str], Route | None], standings: Callable[[str], tuple[Standing, ...]]
    ) -> None:
        self.virtual = virtual
        routes = [(choice, find(choice.model)) for choice in virtual.choices]
        self.all = tuple(
            Option(choice, route, standings(route.model))
            for choice, route in routes
            if route is not None and route.virtual is None
        )

    def order(
        self, operation: str, ledger: Ledger, key: int, allowed: Container[str] | None = None
    ) -> tuple[Option, ...]:
        """The models to try with one request, the best first; none where no model behind serves `operation`.

        `key` is that of the request's session, else a random one (below `PRIME`). `allowed` are the models that the
        caller may use; None where it may use the virtual one by its name, whatever stands behind. Without fall-back
        there is one model at most.
        """
        serving = [
            option
            for option in self.all
            if operation in option.operations and (allowed is None or option.route.model in allowed)
        ]
        usable = [option for option in serving if not option.is_unavailable] or serving[:1]
        if len(usable) < 2:
            return tuple(usable)
        by_weight = self.virtual.choose == "weight"
        ordered = self._by_weight(usable, ledger, key) if by_weight else self._by_warmth(usable, ledger)
        return tuple(ordered if self.virtual.fall_back else ordered[:1])

    def _by_warmth(self, options: Iterable[Option], ledger: Ledger) -> list[Option]:
        roomy: list[Option] = []
        full: list[tuple[float, Option]] = []
        cold: list[Option] = []
        for option in options:
            each = self._to_do(option, ledger)
            if each is None:
                cold.append(option)
            elif self._is_full(each):
                full.append((each, option))
            else:
                roomy.append(option)
        full.sort(key=lambda one: one[0])
        return [*roomy, *(option for _, option in full), *cold]

    def _by_weight(self, options: Iterable[Option], ledger: Ledger, key: int) -> list[Option]:
        # Each draws a time for the key, as if it came by chance at the rate of its weight; the first to come has the
        # request. When a model comes or goes, only the keys that it gets or had move.
        drawn = sorted(options, key=lambda option: _comes_after(option, key))
        if self.virtual.spill_over is None:
            return drawn
        return sorted(drawn, key=lambda option: self._is_full(self._to_do(option, ledger) or 0.0))

    def _is_full(self, each: float) -> bool:
        spill_over = self.virtual.spill_over
        return spill_over is not None and each >= spill_over

    def _to_do(self, option: Option, ledger: Ledger) -> float | None:
        """What all workers have in flight and waiting, for each replica that can be chosen; None where none can."""
        ready = [standing for standing in option.standings if not standing.breaker.is_out]
        if not ready:
            return None
        if self.virtual.spill_over is None:
            return 0.0
        busy = sum(in_flight(standing, ledger) for standing in option.standings)
        return (busy + ledger.waiting(option.route.slot)) / len(ready)


def _comes_after(option: Option, key: int) -> float:
    weight = option.choice.weight
    return -log((key * option.seed % PRIME + 1) / PRIME) / weight if weight > 0 else inf

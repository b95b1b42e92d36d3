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

from collections.abc import Callable, Container
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

    @property
    def ready(self) -> int:
        """How many of its replicas can be chosen now."""
        count = 0
        for standing in self.standings:
            if not standing.breaker.is_out:
                count += 1
        return count

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
        self.is_weighted = virtual.choose == "weight"
        self._spill_over = virtual.spill_over
        self._serving: dict[str, list[Option]] = {}  # by operation
        routes = [(choice, find(choice.model)) for choice in virtual.choices]
        self.all = tuple(
            Option(choice, route, standings(route.model))
            for choice, route in routes
            if route is not None and route.virtual is None
        )

    def order(self, operation: str, ledger: Ledger, key: int, allowed: Container[str] | None = None) -> list[Option]:
        """The models to try with one request, the best first; none where no model behind serves `operation`.

        `key` is that of the request's session, else a random one (below `PRIME`). `allowed` are the models that the
        caller may use; None where it may use the virtual one by its name, whatever stands behind. Without fall-back
        there is one model at most.
        """
        serving = self._serving.get(operation)
        if serving is None:
            serving = self._serving[operation] = [option for option in self.all if operation in option.operations]
        if allowed is not None:
            serving = [option for option in serving if option.route.model in allowed]
        usable = [option for option in serving if not option.is_unavailable] or serving[:1]
        if len(usable) > 1:
            usable = self._by_weight(usable, ledger, key) if self.is_weighted else self._by_warmth(usable, ledger)
        return usable if self.virtual.fall_back else usable[:1]

    def _by_warmth(self, options: list[Option], ledger: Ledger) -> list[Option]:
        ordered: list[Option] = []
        full: list[tuple[float, Option]] = []
        cold: list[Option] = []
        for option in options:
            ready = option.ready
            if not ready:
                cold.append(option)
            elif self._spill_over is None or (each := _to_do(option, ledger) / ready) < self._spill_over:
                ordered.append(option)
            else:
                full.append((each, option))
        if full:
            ordered += [option for _, option in sorted(full, key=lambda one: one[0])]
        return ordered + cold

    def _by_weight(self, options: list[Option], ledger: Ledger, key: int) -> list[Option]:
        # Each draws a time for the key, as if it came by chance at the rate of its weight; the first to come has the
        # request. When a model comes or goes, only the keys that it gets or had move.
        drawn = sorted(options, key=lambda option: _comes_after(option, key))
        if self._spill_over is None:
            return drawn
        return sorted(drawn, key=lambda option: self._is_full(option, ledger))

    def _is_full(self, option: Option, ledger: Ledger) -> bool:
        ready = option.ready
        return bool(ready and self._spill_over is not None and _to_do(option, ledger) >= self._spill_over * ready)


def _to_do(option: Option, ledger: Ledger) -> int:
    """What all workers have in flight and waiting."""
    count = ledger.waiting(option.route.slot)
    for standing in option.standings:
        count += in_flight(standing, ledger)
    return count


def _comes_after(option: Option, key: int) -> float:
    weight = option.choice.weight
    return -log((key * option.seed % PRIME + 1) / PRIME) / weight if weight > 0 else inf

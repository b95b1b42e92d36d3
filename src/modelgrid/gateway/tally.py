"""What scaling is told of each model's requests: how many came, how soon they were answered, what they cost.

It lies between two requests and the next Load, so it counts in plain numbers and is begun anew when it was told.
"""

from __future__ import annotations

from typing import Final

from modelgrid.spec.messages import FIRST_BYTES

TALLIES_A_LOAD: Final = 500  # so that a Load stays a line of some 400 KB; the rest comes with the next one

_ROUNDED_TO: Final = 4  # digits of a second: shorter on the wire, and finer than any objective


class Tally:
    """One model's, since the last Load. Made by `Tallies.of`."""

    __slots__ = (
        "_changed",
        "_first_bytes",
        "_input_tokens",
        "_is_changed",
        "_next",
        "_output_tokens",
        "arrived",
        "model",
    )

    def __init__(self, model: str, changed: list[Tally]) -> None:
        self.model = model
        self.arrived = 0
        self._changed = changed
        self._is_changed = False
        self._first_bytes: list[float] = []
        self._next = 0  # whose place the next one takes when all are taken
        self._input_tokens = 0
        self._output_tokens = 0

    def arrive(self) -> None:
        """A request came, whatever becomes of it."""
        self.arrived += 1
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)

    def begin(self, first_byte_s: float) -> None:
        """The answer to one has begun, so long after the request came. The newest are kept."""
        times = self._first_bytes
        if len(times) < FIRST_BYTES:
            times.append(first_byte_s)
        else:
            times[self._next] = first_byte_s
            self._next = (self._next + 1) % FIRST_BYTES
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)

    def spend(self, input_tokens: int, output_tokens: int) -> None:
        """One has ended that cost so much."""
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        if not self._is_changed:
            self._is_changed = True
            self._changed.append(self)

    def settle(self, told: Told) -> None:
        """Write it down, and begin anew."""
        if self.arrived:
            told.arrived[self.model] = self.arrived
        if self._first_bytes:
            told.ttft[self.model] = tuple([round(time_s, _ROUNDED_TO) for time_s in self._first_bytes])
        if self._input_tokens or self._output_tokens:
            told.tokens[self.model] = (self._input_tokens, self._output_tokens)
        self._is_changed = False
        self.arrived = self._next = self._input_tokens = self._output_tokens = 0
        self._first_bytes = []


class Told:
    """What a Load says of it, under the same names."""

    __slots__ = ("arrived", "tokens", "ttft")

    def __init__(self) -> None:
        self.arrived: dict[str, int] = {}
        self.ttft: dict[str, tuple[float, ...]] = {}
        self.tokens: dict[str, tuple[int, int]] = {}


class Tallies:
    """One worker's, of all models."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._changed: list[Tally] = []

    def of(self, model: str) -> Tally:
        """The model's; the same one from table to table."""
        tally = self._tallies.get(model)
        if tally is None:
            tally = self._tallies[model] = Tally(model, self._changed)
        return tally

    def forget_but(self, models: frozenset[str]) -> None:
        """Other models are gone; what was counted of them is still told."""
        for model in [model for model in self._tallies if model not in models]:
            del self._tallies[model]

    def settle(self, limit: int = TALLIES_A_LOAD) -> Told:
        """What was counted since this was last asked, or `limit` models of it: then the next time goes on."""
        told = Told()
        changed = self._changed[:limit]
        del self._changed[:limit]
        for tally in changed:
            tally.settle(told)
        return told

    @property
    def is_told(self) -> bool:
        """Nothing was counted since the last Load."""
        return not self._changed

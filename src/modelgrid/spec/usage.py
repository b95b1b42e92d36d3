"""What callers have used: how it is counted, what it costs, and how it is reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What was used. Each field only grows, so one count less an earlier one is what came between.

    Tokens are those that engines told of; what was estimated, since an engine told nothing, is no part of them.
    """

    requests: int = 0  # that have ended, however they did
    errors: int = 0  # of them: answered with status 400 or above, or broken off
    left: int = 0  # of them: whose caller left before their end
    seconds: float = 0.0  # from their arrival to their end
    input: int = 0  # tokens; cached ones are a part of them
    output: int = 0
    cached: int = 0
    estimated_input: int = 0
    estimated_output: int = 0
    images: int = 0
    media_s: float = 0.0  # seconds of sound and film, where they were told

    def since(self, before: Counts) -> Counts:
        """What has come since `before`; nothing where it comes late, and is the older one."""
        return _counts(max(0, now - then) for now, then in _pairs(self, before))

    def latest(self, other: Counts) -> Counts:
        """The larger of each."""
        return _counts(max(pair) for pair in _pairs(self, other))

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return _counts(map(sum, _pairs(self, other)))

    @property
    def is_empty(self) -> bool:
        """Nothing was used."""
        return not any(msgspec.structs.astuple(self))


COLUMNS: Final = Counts.__struct_fields__
LEGACY: Final = "usage-{}.json"  # the name of the file in which a worker leaves a `Legacy`


class Used(msgspec.Struct, frozen=True, array_like=True):
    """What one key has used of one model's operation, since a worker began."""

    key: str  # its id; empty: none was asked for
    model: str  # that answered: behind a virtual one, the real one. Empty: the request never became a model's
    operation: str
    counts: Counts


class Legacy(msgspec.Struct, frozen=True):
    """All that a worker has counted since it began, in a file: it ends, or nobody is there to be told."""

    incarnation: str
    used: tuple[Used, ...]


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs. Of tokens, a million; of the rest, one."""

    input: float = 0.0
    output: float = 0.0
    cached: float | None = None  # input that an engine's cache held; None: as other input
    request: float = 0.0
    image: float = 0.0
    second: float = 0.0  # of sound or film

    def of(self, counts: Counts) -> float:
        """What `counts` cost; estimated tokens as much as others."""
        cached = self.input if self.cached is None else self.cached
        tokens = (
            (counts.input - counts.cached + counts.estimated_input) * self.input
            + counts.cached * cached
            + (counts.output + counts.estimated_output) * self.output
        )
        return tokens / 1e6 + counts.requests * self.request + counts.images * self.image + counts.media_s * self.second


@dataclass(frozen=True, slots=True)
class Tariff:
    """What all models cost."""

    prices: Mapping[str, Price] = field(default_factory=dict)  # by model; one without a price costs nothing
    currency: str = ""  # a label

    def cost(self, model: str, counts: Counts) -> float:
        """What a model's `counts` cost."""
        price = self.prices.get(model)
        return 0.0 if price is None else price.of(counts)


class By(StrEnum):
    """What a report's lines may be of."""

    KEY = "key"
    MODEL = "model"
    OPERATION = "operation"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class UsageLine:
    """A report's line. What it is not of is None; days and hours are the machine's own, `2026-11-21` and
    `2026-11-21T14:00`."""

    key: str | None = None  # its name; empty: without a key
    model: str | None = None
    operation: str | None = None
    day: str | None = None
    hour: str | None = None
    requests: int = 0
    errors: int = 0
    left: int = 0
    seconds: float = 0.0
    input: int = 0
    output: int = 0
    cached: int = 0
    estimated_input: int = 0
    estimated_output: int = 0
    images: int = 0
    media_s: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What `modelgrid usage` tells."""

    since: float
    until: float
    currency: str
    by: tuple[str, ...]
    lines: tuple[UsageLine, ...]
    total: UsageLine


def _pairs(one: Counts, other: Counts) -> Iterable[tuple[Any, Any]]:
    return zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)


def _counts(values: Iterable[Any]) -> Counts:
    return Counts(*values)

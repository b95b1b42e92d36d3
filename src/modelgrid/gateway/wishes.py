"""What a caller says of waiting: how soon it is to be sent, for how long it waits, whether it is told meanwhile. Pure.

A priority is a level. What waits gains a level each `LEVEL_S`, so whoever is ahead by priority alone is so for a time
that has a bound, and nobody waits for ever. All gain at the same rate: of two that wait, the one that is first stays
so, and `rank` can be said once, when they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from modelgrid.spec.units import parse_seconds

PRIORITY: Final = "x-modelgrid-priority"
TIMEOUT: Final = "x-modelgrid-timeout"
PROGRESS: Final = "x-modelgrid-progress"

LEVEL_S: Final = 1.0  # of waiting make up for a level of priority
HIGHEST: Final = 100  # priority; the lowest is the same below zero
NAMED: Final = {"high": 50, "normal": 0, "low": -50}

_TIERS: Final = {"priority": NAMED["high"], "flex": NAMED["low"]}  # of OpenAI's service_tier; others are normal
_BOOLS: Final = {"1": True, "true": True, "0": False, "false": False}
_HEADERS = tuple(name.encode() for name in (PRIORITY, TIMEOUT, PROGRESS))
_ECHOED: Final = 40  # characters of a header that can't be read, in the error


class WishError(Exception):
    """A header can't be read; the text says what it may be."""

    def __init__(self, header: str, sent: str, step: str) -> None:
        super().__init__(f"cannot read the header {header}: {sent[:_ECHOED]!r} is not what it may be ({step})")
        self.header = header


class Wishes:
    """What a request's head says. None: nothing."""

    __slots__ = ("priority", "progress", "timeout_s")

    def __init__(
        self, priority: int | None = None, timeout_s: float | None = None, progress: bool | None = None
    ) -> None:
        self.priority = priority
        self.timeout_s = timeout_s
        self.progress = progress

    def __repr__(self) -> str:
        return f"Wishes({self.priority!r}, {self.timeout_s!r}, {self.progress!r})"


def read_wishes(headers: Mapping[bytes, bytes]) -> Wishes | None:
    """What the headers of a request say; None where that is nothing. Raises WishError."""
    priority, timeout, progress = (headers.get(name) for name in _HEADERS)
    if priority is None and timeout is None and progress is None:
        return None
    return Wishes(
        None if priority is None else _priority(priority.decode("latin-1")),
        None if timeout is None else _timeout(timeout.decode("latin-1")),
        None if progress is None else _progress(progress.decode("latin-1")),
    )


def priority_of(wishes: Wishes | None, body: bytes) -> int:
    """A request's priority: the header's, else the one that its JSON has as ``service_tier``. Raises nothing."""
    if wishes is not None and wishes.priority is not None:
        return wishes.priority
    if b'"service_tier"' not in body:
        return NAMED["normal"]
    try:
        tier = _tier(body).service_tier
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NAMED["normal"]
    return _TIERS.get(tier, NAMED["normal"]) if isinstance(tier, str) else NAMED["normal"]


def rank(priority: int, came_at: float) -> float:
    """A request's place among those that wait: the lower, the sooner. It is as if it had come a while ago."""
    return came_at - priority * LEVEL_S


class _Tier(msgspec.Struct, gc=False):
    service_tier: object = None


_tier: Final = msgspec.json.Decoder(_Tier).decode


def _priority(sent: str) -> int:
    named = NAMED.get(sent.lower())
    if named is not None:
        return named
    if re.fullmatch(r"[+-]?\d{1,3}", sent, re.ASCII) and abs(int(sent)) <= HIGHEST:
        return int(sent)
    names = ", ".join(NAMED)
    raise WishError(PRIORITY, sent, f"send {names}, or a whole number from -{HIGHEST} to {HIGHEST}")


def _timeout(sent: str) -> float:
    try:
        return parse_seconds(sent)
    except ValueError:
        raise WishError(TIMEOUT, sent, "send a number of seconds, or for example 30s or 2m") from None


def _progress(sent: str) -> bool:
    value = _BOOLS.get(sent.lower())
    if value is None:
        raise WishError(PROGRESS, sent, "send 1 or true, 0 or false")
    return value

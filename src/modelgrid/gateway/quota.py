"""What a key or a model may still use: limits over the counts that all workers share.

By the minute is by a sliding window: what was counted in this minute, and of the last minute's count the share of it
that lies less than sixty seconds back. It needs two numbers instead of every request's time, and is exact where a
minute's requests are spread evenly.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from modelgrid.gateway.ledger import MINUTE, REQUESTS, SLOT_WORDS, TOKENS, Ledger
from modelgrid.spec.messages import Quota

_MINUTE_S: Final = 60.0
_BUSY_RETRY_S: Final = 1  # nobody knows when one of those in flight ends
_ROUNDING_S: Final = 1e-3  # more than sums of floating-point numbers are off
_TO_TOKENS: Final = TOKENS - REQUESTS


class Limit(StrEnum):
    """What a quota limits, by the names of its fields."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is turned away."""

    limit: Limit
    value: int
    retry_after_s: int  # when there is room if nobody else comes; at least 1


class Gate:
    """A quota over one slot, prepared once and passed by every request that counts against it.

    `now` is in seconds of a clock that all workers of a machine share and that never goes back: the event loop's. Slot
    0 has no place in the ledger: its counts lie in the gate itself, and `again` takes them along.
    """

    __slots__ = (
        "_at",
        "_concurrency",
        "_last",
        "_ledger",
        "_minute",
        "_minute_ends",
        "_own",
        "_requests",
        "_rows",
        "_this",
        "_tokens",
        "slot",
    )

    def __init__(self, ledger: Ledger, slot: int, quota: Quota) -> None:
        self.slot = slot
        self._concurrency = quota.concurrency
        self._requests = quota.requests_per_minute
        self._tokens = quota.tokens_per_minute
        self._ledger = ledger
        self._own = ledger.own
        self._rows: Callable[[], tuple[memoryview[int], ...]] = ledger.rows
        if not slot:
            self._own = memoryview(array("q", bytes(8 * SLOT_WORDS)))
            rows = (self._own,)
            self._rows = lambda: rows
        self._at = slot * SLOT_WORDS  # of the slot's first word, IN_FLIGHT
        self._minute = -1
        self._minute_ends = -1.0
        self._this = self._last = self._at + REQUESTS  # this minute's count and the last one's; tokens lie beside them

    def again(self, slot: int, quota: Quota) -> Gate:
        """The gate of a newer table, for the same key or model."""
        gate = Gate(self._ledger, slot, quota)
        if not slot and not self.slot:
            gate._own, gate._rows = self._own, self._rows
        return gate

    def admit(self, now: float) -> Refusal | None:
        """One more request, unless a limit is reached. Who is admitted calls `release` at the end, on the same gate."""
        if now >= self._minute_ends:
            self._turn(now)
        rows = self._rows()
        if len(rows) > 1:
            return self._admit_beside_others(now)
        own, at, this = self._own, self._at, self._this
        concurrency, requests, tokens = self._concurrency, self._requests, self._tokens
        in_flight = own[at]
        if concurrency is not None and in_flight >= concurrency:
            return self._refusal(Limit.CONCURRENCY, concurrency, now)
        # Most often there is room even where all of the last minute counts: then how much of it does is not asked.
        if tokens is not None:
            spent = own[this + _TO_TOKENS] + own[self._last + _TO_TOKENS]
            if spent >= tokens and self._used(rows, _TO_TOKENS, now) + 1 > tokens:
                return self._refusal(Limit.TOKENS, tokens, now)
        if requests is not None:
            if own[this] + own[self._last] >= requests and self._used(rows, 0, now) + 1 > requests:
                return self._refusal(Limit.REQUESTS, requests, now)
            own[this] += 1
        if concurrency is not None:
            own[at] = in_flight + 1
        return None

    def release(self) -> None:
        """A request that was admitted has ended."""
        if self._concurrency is not None:
            self._own[self._at] -= 1

    def withdraw(self, admitted: float) -> None:
        """A request that was admitted at that time is turned away for another reason, and counts for nothing, unless
        another minute has begun since. Instead of `release`."""
        if self._concurrency is not None:
            self._own[self._at] -= 1
        if self._requests is not None and admitted >= self._minute_ends - _MINUTE_S:
            self._own[self._this] -= 1

    def spend(self, tokens: int, now: float) -> None:
        """What a request took, once that is known. While it is too much requests are turned away."""
        if self._tokens is None:
            return
        if now >= self._minute_ends:
            self._turn(now)
        self._own[self._this + _TO_TOKENS] += tokens

    def _admit_beside_others(self, now: float) -> Refusal | None:
        """`admit` with other workers there.

        The request is counted first, in this worker's row; then all rows are read, and the count is taken back where
        it was one too many. The other way round, two workers could both read that one place is left, and both take
        it. This way the later of them sees both counts. At worst both see both, and both turn their request away:
        below a limit for a moment, above it never.
        """
        own, at, this = self._own, self._at, self._this
        concurrency, requests, tokens = self._concurrency, self._requests, self._tokens
        if concurrency is not None:
            own[at] += 1
        if requests is not None:
            own[this] += 1
        rows = self._ledger.rows_after_writes()
        in_flight = 0
        if concurrency is not None:
            for row in rows:
                in_flight += row[at]
            if in_flight > concurrency:
                self.withdraw(now)
                return self._refusal(Limit.CONCURRENCY, concurrency, now)
        if tokens is not None and self._used(rows, _TO_TOKENS, now) + 1 > tokens:
            self.withdraw(now)
            return self._refusal(Limit.TOKENS, tokens, now)
        if requests is not None and self._used(rows, 0, now) > requests:
            self.withdraw(now)
            return self._refusal(Limit.REQUESTS, requests, now)
        return None

    def _turn(self, now: float) -> None:
        """Another minute. Its counts are from zero before the row says so: nobody may take old ones for new."""
        own, at = self._own, self._at
        minute = int(now // _MINUTE_S)
        this = at + REQUESTS + (minute & 1)
        last = at + REQUESTS + (minute + 1 & 1)
        counted = own[at + MINUTE]
        if counted < minute:
            own[this] = own[this + _TO_TOKENS] = 0
            if counted != minute - 1:
                own[last] = own[last + _TO_TOKENS] = 0
            own[at + MINUTE] = minute
        self._minute, self._minute_ends, self._this, self._last = minute, (minute + 1) * _MINUTE_S, this, last

    def _used(self, rows: tuple[memoryview[int], ...], offset: int, now: float) -> float:
        """By the sliding window, in all workers; of requests, or `_TO_TOKENS` beside them."""
        current, before = self._counts(rows, offset)
        return current + before * ((self._minute_ends - now) / _MINUTE_S) if before else current

    def _counts(self, rows: tuple[memoryview[int], ...], offset: int) -> tuple[int, int]:
        """What was counted in this minute, and in the one before."""
        this, last = self._this + offset, self._last + offset
        minute_at, minute = self._at + MINUTE, self._minute
        current = before = 0
        for row in rows:
            counted = row[minute_at]
            if counted == minute:
                current += row[this]
                before += row[last]
            elif counted == minute - 1:
                before += row[last]
            elif counted == minute + 1:  # its worker has looked at the clock a moment later
                current += row[this] + row[last]
        return current, before

    def _refusal(self, limit: Limit, value: int, now: float) -> Refusal:
        if limit is Limit.CONCURRENCY:
            return Refusal(limit, value, _BUSY_RETRY_S)
        current, before = self._counts(self._rows(), 0 if limit is Limit.REQUESTS else _TO_TOKENS)
        elapsed_s = now - self._minute * _MINUTE_S
        return Refusal(limit, value, _room_in_s(current, before, elapsed_s, value))


def _room_in_s(current: int, before: int, elapsed_s: float, limit: int) -> int:
    """In how many seconds there is room for one more, `elapsed_s` into a minute: whole ones, at least one."""
    most = limit - 1
    if most < 0:
        return int(_MINUTE_S)
    if current <= most:
        wait_s = _faded_s(before, most - current) - elapsed_s
    else:  # not in this minute
        wait_s = _MINUTE_S - elapsed_s + _faded_s(current, most)
    return max(1, math.ceil(wait_s + _ROUNDING_S))


def _faded_s(before: int, room: int) -> float:
    """How far into a minute no more than `room` is left of the last one's count."""
    return _MINUTE_S * (1 - room / before) if before > room else 0.0

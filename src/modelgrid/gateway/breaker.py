"""When a replica is left alone, and when it is tried again: one small machine for each. Pure.

Two things open a breaker. A *loss* (no connection, or one that broke) opens it at once, for nothing else can be done
with the replica. *Errors* in its answers open it when they are many, while the others of its model do better: requests
that fail everywhere say nothing of a replica. It stays open for 1 s, and twice as long each time that it opens again,
up to 5 s after a loss and 30 s for errors. Then one request goes there as a probe: an answer closes the breaker, a
failure opens it again.

A request that was sent before a breaker opened may end at any time later, and says nothing of what is now. So each
turn begins a new *era*, a request keeps the era that it was sent in, and what it tells counts in that era only. The
five requests that break with one engine are one failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import fsum
from typing import Final

FIRST_PAUSE_S: Final = 1.0  # for which it is open; the next one is twice as long, and so on
LONGEST_PAUSE_S: Final = 30.0  # after errors, which heal slowly
LONGEST_LOSS_PAUSE_S: Final = 5.0  # after a loss: an engine that was lost is started again
ERRORS_IN_ROW: Final = 5  # that open it
WINDOW_S: Final = 10.0  # of a window, which an error begins; without errors nothing is counted
WINDOW_REQUESTS: Final = 20  # that the share of errors in a window is taken of, at least
ERROR_SHARE: Final = 0.5  # of them that opens it as well
CALM_S: Final = 30.0  # closed for this long, a breaker forgets how often it opened


class State(StrEnum):
    """What a replica gets."""

    CLOSED = "closed"  # requests
    OPEN = "open"  # none, for a while
    HALF_OPEN = "half_open"  # the next one, as a probe
    PROBING = "probing"  # none but the probe, which is there


class Cause(StrEnum):
    """What opened a breaker."""

    LOSS = "loss"
    ERRORS = "errors"


def is_engine_error(status: int, says_when: bool) -> bool:
    """An answer that speaks against the replica that gave it. `says_when`: it has a Retry-After.

    501 and 505 are about the request; an engine that is busy and says until when is well.
    """
    return status >= 500 and status not in (501, 505) and not (says_when and status in (503, 529))


class Breaker:
    """One replica's. Times are of any clock that doesn't go back."""

    __slots__ = (
        "_calm_since",
        "_errors",
        "_in_row",
        "_openings",
        "_requests",
        "_since",
        "cause",
        "era",
        "is_out",
        "is_watched",
        "state",
    )

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.cause = Cause.LOSS  # of the last opening
        self.era = 0
        self.is_out = False  # open or probing: nothing is sent there
        self.is_watched = False  # something is remembered: successes are to be told, and requests that begin and end
        self._openings = 0  # without calm between them
        self._calm_since = 0.0
        self._in_row = 0
        self._since = 0.0  # the window's begin
        self._errors = 0
        self._requests = 0

    # What requests tell.

    def begin(self) -> None:
        """A request goes there."""
        if self.state is State.HALF_OPEN:
            self._turn(State.PROBING)

    def succeed(self, era: int, now: float) -> None:
        """A request of `era` got an answer that is none of the engine's errors."""
        if era != self.era:
            return
        if self.state is not State.CLOSED:
            self._close(now)
        self._in_row = 0
        if now - self._since <= WINDOW_S:
            self._requests += 1
        else:
            self._errors = self._requests = 0
            if not self._openings or now - self._calm_since >= CALM_S:
                self._openings = 0
                self.is_watched = False

    def err(self, era: int, now: float) -> bool:
        """A request of `era` got an engine's error. True: there are many, so `eject` it where the others do better."""
        if era != self.era:
            return False
        if self.state is State.PROBING:
            if self.cause is Cause.ERRORS:
                self._open(Cause.ERRORS)
                return False
            self._close(now)  # it was lost, and now it answers
        elif self.state is not State.CLOSED:
            return False
        self._count_error(now)
        return self._in_row >= ERRORS_IN_ROW or (
            self._requests >= WINDOW_REQUESTS and self._errors >= ERROR_SHARE * self._requests
        )

    def lose(self, era: int) -> None:
        """A request of `era` found no connection, or lost it."""
        if era == self.era:
            self._open(Cause.LOSS)

    def end(self, era: int) -> None:
        """A request of `era` has ended. Was it a probe that told nothing, as its caller left, the next one is."""
        if self.state is State.PROBING and era == self.era:
            self.era += 1
            self._turn(State.HALF_OPEN)

    # What others decide.

    def eject(self) -> None:
        """Open it for its errors."""
        self._open(Cause.ERRORS)

    def half_open(self, era: int) -> None:
        """The pause of `era` is over."""
        if self.state is State.OPEN and era == self.era:
            self.era += 1
            self._turn(State.HALF_OPEN)

    def believe(self) -> None:
        """Someone who should know says that the replica is there: a loss is forgiven, though not forgotten."""
        if self.state is not State.CLOSED and self.cause is Cause.LOSS:
            self.era += 1
            self._turn(State.CLOSED)

    # What is known.

    @property
    def pause_s(self) -> float:
        """How long it stays open."""
        longest_s = LONGEST_LOSS_PAUSE_S if self.cause is Cause.LOSS else LONGEST_PAUSE_S
        return min(FIRST_PAUSE_S * 2.0 ** min(self._openings - 1, 16), longest_s)

    @property
    def is_outlier(self) -> bool:
        """It is, or was until its probe ends, left alone for its errors."""
        return self.state is not State.CLOSED and self.cause is Cause.ERRORS

    def error_share(self, now: float) -> float:
        """Of the requests since the first error of the window."""
        return self._errors / self._requests if self._requests and now - self._since <= WINDOW_S else 0.0

    def _count_error(self, now: float) -> None:
        if now - self._since > WINDOW_S or not self._requests:
            self._since = now
            self._errors = self._requests = 0
        self._errors += 1
        self._requests += 1
        self._in_row += 1
        self.is_watched = True

    def _open(self, cause: Cause) -> None:
        self.cause = cause
        self.era += 1
        self._openings += 1
        self._in_row = self._errors = self._requests = 0
        self._turn(State.OPEN)

    def _close(self, now: float) -> None:
        # The era goes on: nobody else was sent in the probe's.
        self._calm_since = now
        self._in_row = self._errors = self._requests = 0
        self._turn(State.CLOSED)

    def _turn(self, state: State) -> None:
        self.state = state
        self.is_out = state is State.OPEN or state is State.PROBING
        self.is_watched = True


def may_eject(breaker: Breaker, others: Iterable[Breaker], now: float) -> bool:
    """The others of its model that serve fail less than half as often, and half of all are left even without it."""
    others = list(others)
    serving = [other.error_share(now) for other in others if other.state is State.CLOSED]
    outliers = sum(other.is_outlier for other in others)
    if not serving or 2 * (outliers + 1) > len(others) + 1:
        return False
    return 2 * fsum(serving) / len(serving) < breaker.error_share(now)

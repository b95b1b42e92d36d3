"""How long a model waits after a failure, and when its callers are told instead of kept waiting."""

from __future__ import annotations

from modelgrid.spec import Failures

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
GIVE_UP_AFTER = 3  # failures in a row: until then callers wait for the next try, from then on they are told
STABLE_S = 60.0  # a replica that was ready for so long has made up for the failures before it


def delay_s(failures: Failures) -> float:
    """Seconds from the last failure to the next try: 1, 2, 4, … up to five minutes."""
    if failures.count == 0:
        return 0.0
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures.count - 1, 16))


def retry_at(failures: Failures) -> float:
    """When the next try may be made, in seconds since the epoch."""
    return failures.last + delay_s(failures)


def has_given_up(failures: Failures) -> bool:
    """Whether callers should be told now, because waiting has not helped."""
    return failures.hopeless or failures.count >= GIVE_UP_AFTER


def failed(before: Failures, now: float, why: str, *, hopeless: bool) -> Failures:
    """The failures after one more."""
    return Failures(before.count + 1, now, why, hopeless)

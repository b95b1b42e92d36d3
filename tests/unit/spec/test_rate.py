"""How often requests come, as it fades."""

from __future__ import annotations

import pytest

from modelgrid.spec import Rate
from modelgrid.spec.rate import FADE_S


def _after(seconds: int, per_s: int, begun: Rate, now: float) -> Rate:
    rate = begun
    for second in range(seconds):
        rate = rate.counted(per_s, now + second)
    return rate


def test_a_steady_rate_settles_at_what_comes() -> None:
    assert _after(300, 5, Rate(), 10_000.0).per_s == pytest.approx(5.0, rel=0.05)


def test_a_clock_that_is_put_back_does_not_keep_it_from_fading() -> None:
    before = _after(300, 5, Rate(), 10_000.0)
    assert _after(300, 5, before, 6_000.0).per_s == pytest.approx(5.0, rel=0.05)


def test_a_third_is_left_after_a_while() -> None:
    assert Rate(3.0, 1_000.0).faded(1_000.0 + FADE_S) == pytest.approx(3.0 / 2.718, rel=0.01)

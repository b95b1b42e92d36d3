"""The scaler in a closed loop: replicas with continuous batching, starts that take a minute."""

from __future__ import annotations

import pytest
from bench.autoscale.policies import Fixed, Modelgrid
from bench.autoscale.simulate import Policy, Result, Seen, simulate
from bench.autoscale.trace import Mix, Trace, made

from modelgrid.spec import Scaling

LOAD_S = 60.0
TTFT_S = 1.0
MIX = Mix(input_width=0.5)
STEADY = made("steady", lambda _: 12.0, 12.0, 1_800.0, 1, MIX)
STEP = made("step", lambda at: 4.0 if at < 600 else 16.0, 16.0, 1_500.0, 2, MIX)
DOWN = made("down", lambda at: 16.0 if at < 600 else 3.0, 16.0, 1_800.0, 3, MIX)


def run(trace: Trace, policy: Policy, first: int, warm_s: float) -> Result:
    return simulate(trace, policy, load_s=LOAD_S, first=first, warm_s=warm_s)


def ours(target: int = 16, attain: float = 0.95, most: int = 50) -> Modelgrid:
    return Modelgrid(Scaling(min=1, max=most, target=target, ttft_s=TTFT_S, attain=attain), LOAD_S)


@pytest.mark.parametrize("target", [2, 16, 200])
def test_whatever_the_target_was_the_objective_is_attained_and_not_much_more(target: int) -> None:
    least = next(count for count in range(1, 9) if run(STEADY, Fixed(count), count, 900.0).attained(TTFT_S) >= 0.95)
    result = run(STEADY, ours(target), 2, 900.0)
    assert result.attained(TTFT_S) >= 0.93
    assert result.gpu_hours <= (least + 0.7) * 900 / 3_600


def test_steady_traffic_starts_next_to_nothing() -> None:
    assert run(STEADY, ours(), 2, 900.0).starts <= 6


def test_a_step_is_answered_within_a_start_and_some_seconds() -> None:
    policy = Watched()
    run(STEP, policy, 1, 0.0)
    assert 600.0 < policy.enough_at <= 620.0


class Watched(Modelgrid):
    """Notes when it first wanted enough for the step."""

    def __init__(self) -> None:
        super().__init__(Scaling(min=1, max=50, ttft_s=TTFT_S), LOAD_S)
        self.enough_at = 0.0

    def want(self, seen: Seen) -> int:
        count = super().want(seen)
        if seen.now > 600 and count >= 3 and not self.enough_at:
            self.enough_at = seen.now
        return count


def test_what_is_no_longer_needed_goes_within_minutes() -> None:
    policy = ours()
    run(DOWN, policy, 3, 0.0)
    assert policy.wanted.count == 1
    assert run(DOWN, ours(), 3, 1_200.0).gpu_hours <= 1.3 * 600 / 3_600


def test_no_more_than_the_most_however_late_all_is() -> None:
    result = run(STEP, ours(attain=0.999, most=3), 1, 0.0)
    assert result.most == 3


def test_an_objective_out_of_reach_does_not_take_all_there_is() -> None:
    policy = Modelgrid(Scaling(min=1, max=50, ttft_s=0.08, attain=0.95), LOAD_S)
    assert run(STEADY, policy, 2, 900.0).most < 30

"""A simulated engine is as fast as its speed says, however many requests it has at once."""

from __future__ import annotations

import pytest

from modelgrid.simulation.request import Call
from modelgrid.simulation.world import World
from unit.simulation.worlds import SPEED, Told, gpu_machine, model, request


def served(*requests: tuple[float, int, int]) -> list[Call]:
    """Requests (at, input, output) on one engine that is ready at 10."""
    trace = [request(at, input=tokens, output=answer) for at, tokens, answer in requests]
    return World([gpu_machine(24)], [model("a")], Told()).run(trace).calls


def test_one_request_takes_its_prompt_and_its_steps() -> None:
    (call,) = served((20.0, 1000, 11))
    assert call.sent == 20.0
    assert call.first == pytest.approx(21.0)  # 1000 tokens at 1000 a second
    assert call.done == pytest.approx(22.0)  # ten further tokens, 0.1 s each


def test_a_request_waits_for_the_load() -> None:
    (call,) = served((4.0, 1000, 1))
    assert call.sent == pytest.approx(10.0)
    assert call.done == pytest.approx(11.0)
    assert call.waited_s == pytest.approx(6.0)


def test_prompts_are_read_one_after_the_other() -> None:
    first, second = served((20.0, 2000, 1), (20.0, 1000, 1))
    assert first.first == pytest.approx(22.0)
    assert second.first == pytest.approx(23.0)


def test_two_who_write_together_slow_each_other_down() -> None:
    first, second = served((20.0, 1, 101), (20.0, 1, 101))
    # Alone each would take 10 s; a step of two takes 0.2 s instead of 0.1 s.
    assert first.done == pytest.approx(40.0, abs=0.05)
    assert second.done == pytest.approx(40.0, abs=0.05)


def test_who_is_left_alone_becomes_faster_again() -> None:
    short, long = served((20.0, 1, 51), (20.0, 1, 101))
    assert short.done == pytest.approx(30.0, abs=0.05)  # 50 steps of 0.2 s
    assert long.done == pytest.approx(35.0, abs=0.05)  # and 50 more of 0.1 s


def test_beyond_the_most_that_run_requests_wait_inside() -> None:
    calls = served(*[(20.0, 1, 101)] * (SPEED.most_running + 1))
    assert calls[-1].sent == 20.0
    assert calls[-1].first is not None
    assert calls[-1].first > (calls[0].done or 0.0) - 0.001


def test_a_caller_who_leaves_makes_room() -> None:
    trace = [request(20.0, input=1, output=1001, patience_s=5.0), request(20.0, input=1, output=101)]
    gone, stayed = World([gpu_machine(24)], [model("a")], Told()).run(trace).calls
    assert gone.left == pytest.approx(25.0)
    assert gone.done is None
    assert stayed.done == pytest.approx(25.0 + (100 - 25) * 0.1, abs=0.1)  # 25 steps of 0.2 s, then alone

"""Which replica a request goes to."""

from __future__ import annotations

from modelgrid.gateway.choose import choose
from modelgrid.spec import Target

A, B, C = (Target(replica=name, url="http://127.0.0.1:1/v1", model="m") for name in "abc")


def test_the_least_loaded_target_is_chosen() -> None:
    assert choose([A, B, C], {"a": 2, "b": 1, "c": 3}, set(), turn=0) == B


def test_a_target_without_a_count_has_none() -> None:
    assert choose([A, B], {"a": 1}, set(), turn=0) == B


def test_equals_take_turns() -> None:
    assert [choose([A, B, C], {"b": 1}, set(), turn) for turn in range(4)] == [A, C, A, C]


def test_suspects_are_left_alone_also_when_idle() -> None:
    assert choose([A, B], {"b": 9}, {"a"}, turn=0) == B


def test_only_suspects_is_nobody() -> None:
    assert choose([A], {}, {"a"}, turn=0) is None


def test_no_targets_is_nobody() -> None:
    assert choose([], {}, set(), turn=0) is None

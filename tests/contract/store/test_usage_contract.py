"""What every store promises of usage: each thing that was told counts once, whoever is killed when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from modelgrid.spec.usage import Counts, Price, Tariff, Used
from modelgrid.store import USAGE_KEPT_S, MemoryStore, Store, Told, UsageAsked, UsageRow, open_store

HOUR = 3600.0
FREE = Tariff()


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    kinds: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: open_store(tmp_path / "modelgrid.db"),
        "memory": MemoryStore,
    }
    opened = kinds[request.param]()
    yield opened
    opened.close()


def told(requests: int, incarnation: str = "w1", key: str = "k", model: str = "m", **more: int) -> Told:
    return Told(incarnation, Used(key, model, "chat", Counts(requests=requests, **more)))


def requests(store: Store) -> int:
    return sum(row.counts.requests for row in store.usage(UsageAsked()))


def test_what_is_told_again_is_counted_once(store: Store) -> None:
    for count in (3, 3, 5, 5):
        store.write_usage([told(count)], 0.0, FREE)
    assert requests(store) == 5


def test_what_comes_late_takes_nothing_back(store: Store) -> None:
    store.write_usage([told(5, input=50)], 0.0, FREE)
    store.write_usage([told(3, input=30)], 0.0, FREE)
    store.write_usage([told(6, input=60)], 0.0, FREE)
    (row,) = store.usage(UsageAsked())
    assert (row.counts.requests, row.counts.input) == (6, 60)


def test_each_worker_counts_from_its_own_beginning(store: Store) -> None:
    store.write_usage([told(5, "w1"), told(2, "w2")], 0.0, FREE)
    store.write_usage([told(4, "w3"), told(3, "w2")], 0.0, FREE)
    assert requests(store) == 12


def test_what_came_between_belongs_to_the_hour_in_which_it_was_told(store: Store) -> None:
    store.write_usage([told(5)], 10.0, FREE)
    store.write_usage([told(7)], HOUR + 10.0, FREE)
    assert [(row.hour, row.counts.requests) for row in store.usage(UsageAsked())] == [(0, 5), (1, 2)]
    assert [row.hour for row in store.usage(UsageAsked(since=HOUR))] == [1]
    assert [row.hour for row in store.usage(UsageAsked(until=HOUR - 1))] == [0]


def test_a_cost_is_that_of_its_time(store: Store) -> None:
    store.write_usage([told(1, input=1_000_000)], 0.0, Tariff({"m": Price(input=2.0)}, "EUR"))
    store.write_usage([told(2, input=2_000_000)], 0.0, Tariff({"m": Price(input=5.0)}, "USD"))
    store.write_usage([told(3, input=3_000_000)], 0.0, Tariff({}, "USD"))
    assert store.usage(UsageAsked()) == [UsageRow(0, "k", "m", "chat", Counts(requests=3, input=3_000_000), 7.0)]
    assert store.currency() == "USD"


def test_of_keys_and_models_only_those_that_are_asked_for(store: Store) -> None:
    store.write_usage([told(1, key=key, model=model) for key in "ab" for model in "mn"], 0.0, FREE)
    found = store.usage(UsageAsked(keys=("a",), model="n"))
    assert [(row.key, row.model) for row in found] == [("a", "n")]
    assert store.usage(UsageAsked(keys=())) == []


def test_what_is_old_goes_and_so_does_what_workers_told_that_are_gone(store: Store) -> None:
    store.write_usage([told(1, "gone"), told(2, "here")], 0.0, FREE)
    store.write_usage([told(7, "here")], 2 * HOUR, FREE)
    store.forget_usage(USAGE_KEPT_S + HOUR, ["here"])
    assert requests(store) == 5
    store.write_usage([told(8, "here")], 2 * HOUR, FREE)
    assert requests(store) == 6


def test_names_can_be_anything(store: Store) -> None:
    name = "'; DROP TABLE usage; --"
    store.write_usage([told(1, key=name, model=name)], 0.0, FREE)
    assert [row.key for row in store.usage(UsageAsked(model=name))] == [name]


def test_killed_anywhere_a_controller_counts_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    """Controllers come and go; each is told everything by the workers that live, and writes some of it."""
    dice = Random(6)
    counted: dict[str, int] = {}
    for life in range(40):
        store = open_store(tmp_path / "modelgrid.db")
        for worker in dice.sample("abcdef", 3):
            if dice.random() < 0.2:
                counted[f"{worker}{life}"] = 0  # the next of its name
        for worker in counted:
            counted[worker] += dice.randrange(20)
            for again in range(dice.randrange(3) + 1):
                store.write_usage(
                    [told(counted[worker], worker), told(counted[worker] // 2, worker)][again % 2 :], 0, FREE
                )
        store.close()
        reread = open_store(tmp_path / "modelgrid.db")
        assert requests(reread) == sum(counted.values())
        reread.close()

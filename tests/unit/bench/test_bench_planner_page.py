"""The planner's figures: the page says what was kept, and what makes the figures works in small."""

from __future__ import annotations

import pytest
from bench.laps import facts, fleet, lap_ms
from bench.planner.loads import sweep
from bench.planner.page import PAGE, page
from bench.planner.publish import class_waits, picture
from bench.planner.run import Run, run
from bench.planner.table import COLUMNS, is_behind, verdicts
from bench.planner.workloads import workloads

GOODPUT, WAIT = COLUMNS[0], COLUMNS[3]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """One workload with few requests, of two classes."""
    busy = workloads(0.1)["busy"]
    return [run(busy, way, 1) for way in ("modelgrid", "lru", "llama-swap")]


def test_the_page_is_what_was_kept() -> None:
    assert PAGE.read_text() == page(), "run: python -m bench.planner.page"


def test_models_that_are_asked_for_start_where_there_is_room() -> None:
    given = fleet(20, 4, 100, waiting=2, is_full=False)
    spent_ms, starts, others = lap_ms(given, facts(given))
    assert spent_ms > 0
    assert starts >= 2
    assert others == 0


def test_where_there_is_no_room_others_make_it() -> None:
    given = fleet(20, 4, 100, waiting=2, is_full=True)
    _, starts, others = lap_ms(given, facts(given))
    assert starts == 0
    assert others >= 2


def test_a_calm_lap_does_nothing() -> None:
    given = fleet(20, 4, 100, waiting=0, is_full=True)
    assert lap_ms(given, facts(given))[1:] == (0, 0)


def test_few_requests_are_answered_by_every_way() -> None:
    found = sweep(("modelgrid", "lru"), (1,), loads=(0.05,), swept=("turns",))
    assert set(found["turns"]["0.05"]) == {"modelgrid", "lru"}
    for figures in found["turns"]["0.05"].values():
        assert figures["goodput/s"] > 0


def test_level_is_not_behind() -> None:
    assert not is_behind(GOODPUT, 0.995, 1.0)
    assert is_behind(GOODPUT, 0.98, 1.0)
    assert not is_behind(WAIT, 0.19, 0.0)
    assert not is_behind(WAIT, 100.9, 100.0)
    assert is_behind(WAIT, 101.1, 100.0)


def test_rivals_are_told_apart(runs: list[Run]) -> None:
    found = verdicts(runs)
    assert list(found) == ["first-come/lru", "llama-swap"]
    for rival, ways in (("first-come/lru", ("lru",)), ("llama-swap", ("llama-swap",))):
        assert all(any(f", {way} has " in line for way in ways) for line in found[rival])


def test_the_picture_tells_classes_apart(runs: list[Run]) -> None:
    waits = class_waits(runs)["busy"]
    assert {name: set(by_way) for name, by_way in waits.items()} == {
        kind: {"modelgrid", "lru", "llama-swap"} for kind in ("busy", "rare")
    }
    drawn = picture(runs, {"busy": "told"})
    assert drawn.count(">rare</text>") == 3

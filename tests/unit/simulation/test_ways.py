"""The ways of others do what they say: the comparison is worth nothing otherwise."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import pytest
from bench.planner.publish import picture
from bench.planner.run import WAYS, run
from bench.planner.table import drawn_table, verdicts
from bench.planner.ways import FirstCome, LlamaSwap, Lru
from bench.planner.workloads import Workload, workloads

from modelgrid.simulation.request import Call, Request
from modelgrid.simulation.world import Way, World
from unit.simulation.worlds import gpu_machine, model, request

OTHERS = (FirstCome, LlamaSwap, Lru)


def served(way: Way, *asked: tuple[float, str], room: int = 24, output: int = 11) -> list[Call]:
    """Models of 20 GB that load in 10 s and stop in 1 s; a request takes 2 s."""
    models = [model(name) for name in ("a", "b", "c")]
    trace = [request(at, name, output=output) for at, name in asked]
    return World([gpu_machine(room)], models, way).run(trace).calls


def sent(calls: list[Call]) -> list[float]:
    return [round(call.sent, 1) if call.sent is not None else -1.0 for call in calls]


@pytest.mark.parametrize("way", OTHERS)
def test_a_cold_model_is_loaded_and_a_loaded_one_serves_at_once(way: type[Way]) -> None:
    assert sent(served(way(), (0.0, "a"), (20.0, "a"))) == [10.0, 20.0]


@pytest.mark.parametrize("way", OTHERS)
def test_a_swap_waits_for_what_is_running(way: type[Way]) -> None:
    """a runs from 10 to 12, takes 1 s to stop, and b 10 s to load."""
    assert sent(served(way(), (0.0, "a"), (5.0, "b"))) == [10.0, 23.0]


@pytest.mark.parametrize("way", [FirstCome, Lru])
def test_in_turn_each_request_is_a_swap(way: type[Way]) -> None:
    calls = served(way(), (0.0, "a"), (1.0, "b"), (2.0, "a"), (3.0, "b"))
    assert sent(calls) == [10.0, 23.0, 36.0, 49.0]


def test_llama_swap_serves_all_of_a_model_before_it_swaps() -> None:
    calls = served(LlamaSwap(), (0.0, "a"), (1.0, "b"), (2.0, "a"), (3.0, "b"))
    assert sent(calls) == [10.0, 24.0, 10.0, 24.0]  # the two of a together take 3 s


def test_llama_swap_starves_who_waits_for_a_busy_model() -> None:
    busy = [(float(at), "a") for at in range(100)]
    calls = served(LlamaSwap(), (0.0, "a"), (12.0, "b"), *busy)
    rare = next(call for call in calls if call.model == "b")
    assert rare.sent is not None
    assert rare.sent > 100.0


def test_behind_the_head_of_first_come_everybody_waits() -> None:
    """The second request for a could be served at once at 12, but b came before it."""
    assert sent(served(FirstCome(), (0.0, "a"), (10.5, "b"), (10.6, "a")))[2] > 30.0


def test_the_least_recently_used_goes() -> None:
    calls = served(Lru(), (0.0, "a"), (20.0, "b"), (40.0, "a"), (50.0, "c"), (80.0, "a"), room=48)
    assert sent(calls) == [10.0, 30.0, 40.0, 61.0, 80.0]  # c took the place of b: 1 s and 10 s


@pytest.mark.parametrize("way", OTHERS)
def test_who_leaves_is_not_served(way: type[Way]) -> None:
    trace = [request(0.0, "a", patience_s=2.0), request(1.0, "b", patience_s=2.0), request(40.0, "a")]
    calls = World([gpu_machine(24)], [model("a"), model("b")], way()).run(trace).calls
    assert [call.sent is not None for call in calls] == [False, False, True]


@pytest.mark.parametrize("name", workloads())
def test_every_workload_has_requests_for_the_models_that_it_has(name: str) -> None:
    workload = workloads()[name]
    trace = workload.trace(1)
    assert len(trace) > 100
    assert {asked.model for asked in trace} <= {each.name for each in workload.models}
    assert trace == workload.trace(1)
    assert [asked.at for asked in trace] == sorted(asked.at for asked in trace)


def test_on_models_in_turn_the_planner_is_three_times_ahead_of_first_come_and_lru() -> None:
    workload = workloads(0.3)["turns"]
    runs = [run(workload, way, 1) for way in WAYS]
    ours, *others = runs
    assert verdicts(runs)["first-come/lru"] == []
    for other in others:
        if other.way != "llama-swap":
            assert ours.all.goodput >= 3 * other.all.goodput


def test_the_table_is_aligned_and_the_picture_is_xml() -> None:
    chosen = {
        name: replace(each, trace=_short(each)) for name, each in workloads().items() if name in ("turns", "priority")
    }
    runs = [run(workload, way, 1) for workload in chosen.values() for way in ("first-come", "lru")]
    told = {name: workload.told for name, workload in chosen.items()}
    head, *rows = drawn_table(runs, told).splitlines()
    end = head.index("goodput/s") + len("goodput/s")
    figures = [row for row in rows if row.startswith("  ")]
    assert len(figures) == 2 + 2 * 3  # each way once, and its two classes where there are some
    assert all(row[end - 4] == "." and row[end : end + 2] == "  " for row in figures)
    root = ET.fromstring(picture(runs, told))
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("first-come") == 2 * len(chosen)
    assert any(told["turns"] in text for text in texts)


def _short(workload: Workload) -> Callable[[int], list[Request]]:
    return lambda seed: workload.trace(seed)[:60]

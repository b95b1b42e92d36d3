"""Figures are what the history says, by hand or by program."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from modelgrid.simulation import timeline
from modelgrid.simulation.draw import drawing
from modelgrid.simulation.engine import Phase
from modelgrid.simulation.figures import figures, percentile, usage
from modelgrid.simulation.planned import Planned
from modelgrid.simulation.synthetic import Shape, zipf
from modelgrid.simulation.world import World
from modelgrid.spec import ModelName, ReplicaId
from modelgrid.spec.machine import LOCAL
from unit.simulation.worlds import Told, gpu_machine, model, request

SVG = "{http://www.w3.org/2000/svg}"


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, p) for p in (50.0, 95.0, 99.0)] == [50.0, 95.0, 99.0]
    assert percentile([3.0], 99.0) == 3.0
    assert math.isnan(percentile([], 50.0))


def test_waiting_goodput_and_objective() -> None:
    """The engine is ready at 10: the first waits 10 s, the second nothing, the third leaves."""
    trace = [
        request(0.0, output=1, deadline_s=5.0),
        request(20.0, output=1, deadline_s=5.0),
        request(1.0, "b", patience_s=4.0, deadline_s=5.0),
    ]
    trace.sort(key=lambda each: each.at)
    history = World([gpu_machine(24)], [model("a"), model("b")], Told()).run(trace)
    made = figures(history.calls, 20.0, {ModelName("a"): 2.0})
    assert (made.requests, made.completed, made.in_time, made.left, made.refused) == (3, 2, 1, 1, 0)
    assert made.waited_s == (4.0, 10.0, 10.0)
    assert made.goodput == pytest.approx(1 / 20)
    assert made.completed_rate == pytest.approx(2 / 20)
    assert made.attained == pytest.approx(1 / 2)
    assert figures(history.calls, 20.0).attained is None


def test_gpu_hours_count_shares_of_a_gpu_and_what_is_loading() -> None:
    way = Told(loads=(("a", 12),), orders={3610.0: lambda world: world.stop(ReplicaId("a-1"))})
    history = World([gpu_machine(24)], [model("a", 12)], way).run([request(20.0), request(4000.0, patience_s=1.0)])
    used = usage(history, [gpu_machine(24)], {LOCAL: 3.6})
    assert used.gpu_hours == pytest.approx(3611 / 3600 / 2)
    assert used.loading_gpu_hours == pytest.approx(11 / 3600 / 2)
    assert used.ends == 1
    assert used.cost == pytest.approx(3.6 * 4001 / 3600)
    assert usage(history, [gpu_machine(24)], {}).cost is None


def test_a_timeline_tells_what_was_there() -> None:
    history = World([gpu_machine(24)], [model("a")], Told()).run([request(0.0, output=101), request(0.0, output=101)])
    assert history.end == pytest.approx(31.0)
    (lane,) = timeline.lanes(history, 4)
    assert lane.phases == (Phase.LOADING, Phase.READY, Phase.READY, Phase.READY)
    assert timeline.waiting(history, 4) == {"a": (2, 2, 0, 0)}


def test_the_drawing_is_xml_and_shows_every_model() -> None:
    models = [model(f"m<{n}>", 8) for n in range(4)]
    machines = [gpu_machine(20, 10)]
    trace = zipf([each.name for each in models], Shape(0.5, 200.0, output=20.0), 1)
    history = World(machines, models, Planned()).run(trace)
    root = ET.fromstring(drawing(history, machines, "a & b"))
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"a & b", "m<0>", "m<1>", "m<2>", "m<3>", "waiting"} <= texts
    rects = list(root.iter(f"{SVG}rect"))
    tops = [float(rect.get("y") or 0) for rect in rects if rect.get("class") == "device"]
    held = [rect for rect in rects if rect.find(f"{SVG}title") is not None]
    assert len(tops) == 2
    assert held
    for rect in held:  # nothing lies outside of its device, as it would where memory were drawn twice
        top, tall = float(rect.get("y") or 0), float(rect.get("height") or 0)
        assert any(device - 0.2 <= top and top + tall <= device + 76.2 for device in tops), rect.attrib

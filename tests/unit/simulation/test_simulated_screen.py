"""What `modelgrid simulate` shows on a terminal: within its width, and never without the names of models."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from modelgrid.cli.simulated import shown
from modelgrid.simulation.draw import drawing
from modelgrid.simulation.machines import machines_of
from modelgrid.simulation.planned import Planned
from modelgrid.simulation.report import Report
from modelgrid.simulation.scenario import made_up_models, scenario
from modelgrid.simulation.synthetic import Shape, zipf
from modelgrid.simulation.world import World


def report(machines: str = "H100", models: str = "12x16GB", objective_s: float | None = None) -> Report:
    described = replace(machines_of(machines), models=made_up_models(models))
    described = replace(
        described, models={name: replace(each, objective_s=objective_s) for name, each in described.models.items()}
    )
    made = scenario([], described)
    requests = zipf(made.names, Shape(0.5, 120.0, deadline_s=60.0), seed=1)
    return Report.of(World(made.machines, made.models, Planned()).run(requests), made)


def lines(told: Report, columns: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=columns, color_system=None, highlight=False)
    for part in shown(told, columns):
        console.print(part)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("columns", [72, 80, 100, 140])
def test_every_model_has_its_line_whatever_the_width(columns: int) -> None:
    told = report(objective_s=1.0)
    shown_lines = lines(told, columns)
    head = next(line for line in shown_lines if line.startswith("MODEL"))
    for figure in ("WAIT P50", "TTFT P50", "ATTAINED"):
        assert figure in head
    for name in told.models:
        assert any(line.startswith(name) for line in shown_lines), name
    for start in ("local gpu0", "waiting"):
        assert sum(line.startswith(start) for line in shown_lines) == 1
    assert all(len(line) <= columns for line in shown_lines)
    table = shown_lines[shown_lines.index(head) : shown_lines.index(head) + 2 + len(told.models)]
    assert len({len(line) for line in table}) == 1  # nothing wraps


def test_a_wide_terminal_is_told_everything() -> None:
    head = next(line for line in lines(report(objective_s=1.0), 140) if line.startswith("MODEL"))
    assert " ".join(head.split()) == (
        "MODEL REQUESTS GOODPUT/S DONE/S WAIT P50 P95 P99 TTFT P50 P95 P99 ATTAINED STARTS"
    )


def test_without_an_objective_nothing_is_attained() -> None:
    assert not any("ATTAINED" in line for line in lines(report(), 140))


def test_where_nothing_ever_ran_there_is_nothing_over_time() -> None:
    assert not any("OVER TIME" in line for line in lines(report(models="1x500GB"), 100))


def test_a_machine_without_gpus_has_no_gpu_hours() -> None:
    assert any("machine-hours" in line for line in lines(report("cpu:64GiB", "1x8GB"), 100))


def test_the_picture_tells_what_its_colours_mean() -> None:
    told = report(models="20x16GB")
    picture = drawing(told.history, told.scenario.machines, told.title)
    assert ">others</text>" in picture  # ten colours, twenty models
    assert "pale: loading or ending</text>" in picture

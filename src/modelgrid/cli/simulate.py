"""`modelgrid simulate`: what a trace would come to on these machines, with this planner."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure

if TYPE_CHECKING:
    from modelgrid.simulation.machines import Described
    from modelgrid.simulation.request import Request
    from modelgrid.simulation.scenario import Scenario
    from modelgrid.spec import ModelName

_DEADLINE = "60s"
_MOST_REQUESTS = 1_000_000  # a synthetic trace is made in memory, and a million takes an hour and more


@click.command(short_help="Simulate requests on machines, with the same planner.")
@click.argument("trace", type=click.Path(path_type=Path), required=False)
@ask.config_option
@click.option("--machines", metavar="TEXT|FILE", help="8xH100, 2x8xH100, 4x24GB, cpu:64GiB, or a YAML file. [this one]")
@click.option("--made-up", metavar="TEXT", help="Models instead of the configured ones: 20x16GB, or 2x140GB+8x16GB.")
@click.option("--model", metavar="NAME", help="The model of requests that name none.")
@click.option("--models", "law", metavar="LAW", help="Or spread them over all: zipf:EXPONENT:SEED, or turns.")
@click.option("--synthetic", metavar="KIND", help="Make up a trace: turns, zipf, bursts, steady or daily.")
@click.option("--rate", type=float, default=1.0, show_default=True, help="Of a synthetic trace: requests a second.")
@click.option("--duration", default="30m", show_default=True, metavar="TIME", help="Of a synthetic trace.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of a synthetic trace: its dice.")
@click.option("--deadline", default=_DEADLINE, show_default=True, metavar="TIME", help="An answer counts until then.")
@click.option("--patience", default="10m", show_default=True, metavar="TIME", help="Then a caller leaves.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE.svg", help="Draw what happened into a file.")
@ask.json_option
def simulate(
    trace: Path | None,
    named: Path | None,
    machines: str | None,
    made_up: str | None,
    model: str | None,
    law: str | None,
    synthetic: str | None,
    rate: float,
    duration: str,
    seed: int,
    deadline: str,
    patience: str,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Simulate what requests would come to: waiting, objectives, swaps, GPU-hours, cost.

    TRACE is a recorded CSV (TIMESTAMP, ContextTokens, GeneratedTokens), or JSON lines like {"at": 12.5, "model":
    "chat", "input": 300, "output": 120}. The planner is the very one that `modelgrid serve` runs.

    \b
    modelgrid simulate trace.csv --model chat --machines 4xL40S
    modelgrid simulate --synthetic zipf --made-up 20x16GB --machines 1xH100 --picture day.svg
    """
    from modelgrid.cli.simulating import simulating
    from modelgrid.simulation.machines import DescriptionError
    from modelgrid.simulation.planned import Planned
    from modelgrid.simulation.report import Report
    from modelgrid.simulation.trace import TraceError
    from modelgrid.simulation.world import World

    if (trace is None) == (synthetic is None):
        raise click.UsageError("name a TRACE, or make one with --synthetic KIND (and not both)")
    if synthetic is not None and (model or law):
        raise click.UsageError("--model and --models are for a TRACE: a synthetic one asks for all models")
    try:
        described = _described(machines, made_up, named)
        scenario = _made_up(described) if made_up else _configured(named, described)
        limits = _seconds("--deadline", deadline), _seconds("--patience", patience)
        if trace is not None:
            requests = _recorded(trace, scenario.names, model, law, limits)
        else:
            requests = _made(str(synthetic), scenario.names, rate, _seconds("--duration", duration), seed, limits)
    except (DescriptionError, TraceError) as error:
        raise Failure(str(error)) from error
    world = World(scenario.machines, scenario.models, Planned())
    with nullcontext() if as_json else simulating(len(requests)) as on_arrival:
        history = world.run(requests, on_arrival)
    report = Report.of(history, scenario)
    if picture is not None:
        _draw(picture, report)
    if as_json:
        screen.show_json(report.plain())
    else:
        from modelgrid.cli.simulated import shown

        out = screen.console()
        screen.show(*shown(report, out.width if out.is_terminal else None))


def _described(machines: str | None, made_up: str | None, named: Path | None) -> Described:
    from dataclasses import replace

    from modelgrid.simulation.machines import Described, read_machines
    from modelgrid.simulation.scenario import made_up_models

    described = read_machines(machines) if machines is not None else Described()
    if made_up:
        described = replace(described, models={**made_up_models(made_up), **described.models})
    if not described.machines:
        from modelgrid.hardware import measure_machine

        config = ask.configuration(named).machine
        described = replace(described, machines=(measure_machine(config, None),))
    return described


def _made_up(described: Described) -> Scenario:
    from modelgrid.simulation.scenario import scenario

    return scenario([], described)


def _configured(named: Path | None, described: Described) -> Scenario:
    from modelgrid.simulation.scenario import scenario
    from modelgrid.spec.weights import Weights
    from modelgrid.weights import weigh

    config = ask.configuration(named)
    root = ask.weights_root(config)
    return scenario(config.models, described, lambda spec: weigh(spec.source, root) if spec.source else Weights(0))


def _recorded(
    trace: Path, names: Sequence[ModelName], model: str | None, law_text: str | None, limits: tuple[float, float]
) -> list[Request]:
    from modelgrid.simulation.trace import law, read_trace

    if model and law_text:
        raise click.UsageError("--model and --models exclude each other")
    if model and model not in names:
        raise Failure(f"cannot simulate {model}: there are {', '.join(names)} (name one of them with --model)")
    chosen = [name for name in names if name == model]
    assign = law(law_text or "turns", chosen or names) if model or law_text or len(names) == 1 else None
    return read_trace(trace, names, assign, *limits)


def _made(
    kind: str, names: Sequence[ModelName], rate: float, duration_s: float, seed: int, limits: tuple[float, float]
) -> list[Request]:
    from modelgrid.simulation.synthetic import SYNTHETIC, Shape

    if kind not in SYNTHETIC:
        raise click.UsageError(f"there is no synthetic trace {kind!r}: there are {', '.join(SYNTHETIC)}")
    if not rate > 0 or duration_s <= 0:
        raise click.UsageError("--rate and --duration are above 0")
    if rate * duration_s > _MOST_REQUESTS:
        raise click.UsageError(
            f"cannot make a trace of {rate * duration_s:,.0f} requests: --rate times --duration is at most "
            f"{_MOST_REQUESTS:,} (lower one of them)"
        )
    deadline_s, patience_s = limits
    shape = Shape(rate, duration_s, deadline_s=deadline_s, patience_s=patience_s)
    requests = SYNTHETIC[kind](names, shape, seed)
    if not requests:
        raise Failure("cannot simulate: the trace has no requests (raise --rate or --duration)")
    return requests


def _seconds(option: str, text: str) -> float:
    from modelgrid.spec.units import parse_seconds

    try:
        return parse_seconds(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _draw(path: Path, report: object) -> None:
    from modelgrid.simulation.draw import drawing
    from modelgrid.simulation.report import Report

    assert isinstance(report, Report)
    try:
        path.write_text(drawing(report.history, report.scenario.machines, report.title), "utf-8")
    except OSError as error:
        raise Failure(f"cannot write the picture {path}: {error.strerror} (name a file that can be written)") from error

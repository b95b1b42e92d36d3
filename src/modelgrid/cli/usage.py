"""`modelgrid usage`: what was used, by whom, and what it cost. The store is enough: no daemon has to run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from modelgrid.spec.usage import By, UsageLine, UsageReport

_BY = ("key", "model", "operation", "day", "hour")
_BAR_COLUMNS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@click.command(short_help="Show what was used, by whom, and what it cost.")
@click.option(
    "--by", "written", default="key,model", show_default=True, metavar="A,B,…", help=f"Lines by {', '.join(_BY)}."
)
@click.option("--since", default="7d", show_default=True, metavar="TIME", help="How far back: 12h, 7d, or 2026-11-01.")
@click.option("--key", metavar="NAME", help="Of this key alone.")
@click.option("--model", metavar="NAME", help="Of this model alone.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@ask.json_option
def usage(written: str, since: str, key: str | None, model: str | None, as_csv: bool, as_json: bool) -> None:
    """Show requests, tokens and costs, as gateway workers have counted them: a second old at most.

    A number with ~ is estimated in part, by the length of texts: the engine didn't tell. Prices are in the
    configuration (models.NAME.price).
    """
    from modelgrid.store import UnknownKey, tell_usage, usage_as_csv

    now = time.time()
    by, then = _by(written), _since(since, now)
    with ask.store() as store:
        try:
            report = tell_usage(store, now, then, by, key, model)
        except UnknownKey as error:
            raise Failure(str(error)) from error
    if as_csv:
        click.echo(usage_as_csv(report), nl=False)
    elif as_json:
        screen.show_json(report)
    elif report.lines:
        screen.show(picture(report))
    else:
        click.echo(f"nothing was used since {screen.moment(then, now)} (look further back: --since 30d)")


def picture(report: UsageReport) -> RenderableType:
    """The table with its total; lines by day or hour alone have a bar each."""
    total = report.total
    unused = {name for name, value in _RARE.items() if not getattr(total, value)}
    counted = [name for name in _COUNTED if name not in unused]
    bars = _bars(report)
    rows = [
        [*(_part(line, part) for part in report.by), *(_cell(line, name) for name in counted), *bar]
        for line, bar in zip(report.lines, bars, strict=True)
    ]
    blank = [""] * (len(report.by) - 1)
    rows.append(["all", *blank, *(_cell(total, name) for name in counted), *("" for _ in bars[0])])
    headings = [_heading(name, report) for name in counted]
    parts = [part.upper() for part in report.by]
    return screen.table([*parts, *headings, *("" for _ in bars[0])], rows, right=headings)


_COUNTED = ("requests", "errors", "left", "input", "cached", "output", "images", "media", "time", "cost")
_RARE = {"cached": "cached", "images": "images", "media": "media_s", "cost": "cost"}  # columns that most need not see


def _heading(name: str, report: UsageReport) -> str:
    if name == "cost":
        return f"COST {report.currency}".strip()
    return name.upper()


def _part(line: UsageLine, part: str) -> str:
    value = str(getattr(line, part))
    if value:
        return value.replace("T", " ") if part == "hour" else value
    return {"key": "(no key)", "model": "(no model)", "operation": "(its own)"}.get(part, "-")


def _cell(line: UsageLine, name: str) -> str:
    match name:
        case "input":
            return _tokens(line.input, line.estimated_input)
        case "output":
            return _tokens(line.output, line.estimated_output)
        case "media":
            return screen.age(line.media_s)
        case "time":
            return screen.age(line.seconds)
        case "cost":
            return _money(line.cost)
        case _:
            return f"{getattr(line, name):,}"


def _money(amount: float) -> str:
    """With as many places as it takes to see that it isn't nothing."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.4f}" if amount >= 0.001 else f"{amount:.6f}"


def _tokens(told: int, estimated: int) -> str:
    return f"~{told + estimated:,}" if estimated else f"{told:,}"


def _bars(report: UsageReport) -> list[list[str | Text]]:
    """What each day or hour had of cost, or else of tokens or requests, where lines are of nothing else."""
    if report.by not in (("day",), ("hour",)):
        return [[] for _ in report.lines]
    sizes: list[float] = [line.requests for line in report.lines]
    if report.total.cost:
        sizes = [line.cost for line in report.lines]
    elif _all_tokens(report.total):
        sizes = [_all_tokens(line) for line in report.lines]
    most = max(sizes) or 1
    return [[screen.text(_bar(size / most), "cyan")] for size in sizes]


def _all_tokens(line: UsageLine) -> int:
    return line.input + line.estimated_input + line.output + line.estimated_output


def _bar(share: float) -> str:
    eighths = round(share * _BAR_COLUMNS * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).strip()


def _by(written: str) -> tuple[By, ...]:
    from modelgrid.spec.usage import By

    try:
        return tuple(By(part.strip()) for part in written.split(","))
    except ValueError:
        raise click.BadParameter(f"write one or more of {', '.join(_BY)}", param_hint="--by") from None


def _since(written: str, now: float) -> float:
    from datetime import datetime

    from modelgrid.spec.units import parse_seconds

    try:
        return now - parse_seconds(written)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        raise click.BadParameter("write a duration (12h, 7d) or a day (2026-11-01)", param_hint="--since") from None

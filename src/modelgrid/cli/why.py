"""`modelgrid why [MODEL]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from modelgrid.cli import ask, screen
from modelgrid.spec.units import parse_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from modelgrid.cli.story import Chapter, Line
    from modelgrid.spec import ReplicaStatus, Why
    from modelgrid.spec.status import History


@click.command(short_help="Explain a model: its state, and what was done and why.")
@click.argument("model", required=False)
@click.option("--since", default="1h", show_default=True, metavar="TIME", help="How far back, for example 15m or 2d.")
@click.option(
    "--events", "-n", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many events at most."
)
@ask.json_option
def why(model: str | None, since: str, events: int, as_json: bool) -> None:
    """Explain MODEL: what its state is and why, what would have to happen for that to change, and each thing that was
    done about it, with the reason. Without MODEL: what happened to all models, in short."""
    try:
        since_s = parse_seconds(since)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from error
    with ask.daemon() as client:
        if model is None:
            history = client.history(events, since_s)
            _show_history(history, since_s, as_json)
            return
        answer = client.why(model, events, since_s)
    if as_json:
        screen.show_json(_data(answer))
    else:
        screen.show(*_told(answer, since_s))


def _told(answer: Why, since_s: float) -> Iterator[RenderableType]:
    from modelgrid.cli.prospect import headline, prospects
    from modelgrid.cli.story import tell

    clock = _clock(answer.now)
    state, reason, details = headline(answer, clock)
    yield screen.joined(screen.text(answer.model.name, "bold"), " is ", screen.state(state), reason)
    for line in details:
        yield screen.indented(screen.text(line.strip(), "dim"), 4)
    if answer.model.behind:
        yield from _behind(answer)
        return
    for line in prospects(answer, clock):
        yield screen.indented(screen.text(line), 2)
    has_run = answer.replicas or any(event.replica for event in answer.events)
    if answer.model.state in ("failed", "unavailable", "starting") and has_run:
        yield screen.indented(screen.text(f"What its engine wrote: {screen.command('logs', answer.model.name)}"), 2)
    yield ""
    chapters = tell(answer.events, clock)
    if not chapters:
        yield screen.text(f"Nothing happened to it in {_window(since_s)}{_further(answer.model.name, since_s)}.")
        return
    yield screen.text(f"What happened in {_window(since_s)}. A replica is one running copy of the model.", "bold")
    if answer.has_more:
        yield screen.text(
            f"Older events of that time are left out (all: {screen.command('why', answer.model.name)} -n 1000)."
        )
    states = {replica.id: replica for replica in answer.replicas}
    for chapter in chapters:
        yield ""
        yield from _chapter(chapter, states, answer)


def _chapter(chapter: Chapter, states: dict[str, ReplicaStatus], answer: Why) -> Iterator[RenderableType]:
    if chapter.replica is None:
        yield screen.text("The model", "bold")
    else:
        replica = states.get(chapter.replica)
        title = screen.text(f"Replica {chapter.replica}{chapter.place}, ", "bold")
        if replica is None:
            yield screen.joined(title, "which is gone")
        else:
            age = screen.age(answer.now - replica.since)
            busy = f", {replica.in_flight} in progress" if replica.in_flight else ""
            yield screen.joined(title, screen.state(replica.state), f" for {age}{busy}")
    yield _timeline(chapter.lines, answer.now)


def _timeline(lines: Sequence[Line], now: float) -> RenderableType:
    rows: list[tuple[Any, ...]] = []
    for line in lines:
        rows.append((screen.moment(line.at, now), screen.text(line.text)))
        rows += [("", screen.text(f"  {detail.strip()}", "dim")) for detail in line.details]
    return screen.indented(screen.timeline(rows), 2)


def _behind(answer: Why) -> Iterator[RenderableType]:
    yield screen.text(
        "  it is virtual: requests for it are served by the models behind it, in this order of preference"
    )
    rows = [
        (
            str(place),
            screen.text(model.name, "bold"),
            screen.state(model.state),
            "?" if model.in_flight is None else str(model.in_flight),
            str(model.waiting),
            screen.brief(model.why),
        )
        for place, model in enumerate(answer.behind, start=1)
    ]
    yield ""
    yield screen.table(("", "MODEL", "STATE", "IN FLIGHT", "WAITING", "WHY"), rows, right=("IN FLIGHT", "WAITING"))
    yield ""
    yield screen.text(f"what was done about one of them: {screen.command('why', answer.model.behind[0])}")


def _show_history(history: History, since_s: float, as_json: bool) -> None:
    from modelgrid.cli.account import account

    clock = _clock(history.now)
    lines = account(history.events, clock)
    if as_json:
        screen.show_json({**_plain(history), "story": [asdict(line) for line in lines]})
        return
    if not lines:
        screen.show(screen.text(f"Nothing happened in {_window(since_s)} (further back: modelgrid why --since 1d)."))
        return
    rows = [
        (screen.moment(line.at, history.now), screen.text(line.model, "bold"), screen.text(line.text)) for line in lines
    ]
    parts: list[RenderableType] = [screen.text(f"What happened in {_window(since_s)}:", "bold")]
    if history.has_more:
        parts.append(screen.text("Older events of that time are left out (more: -n 1000)."))
    example = lines[-1].model
    screen.show(*parts, "", screen.timeline(rows), "", screen.text(f"More of one: {screen.command('why', example)}"))


def _data(answer: Why) -> dict[str, Any]:
    """The answer, and the sentences that are made of it."""
    from modelgrid.cli.prospect import headline, prospects
    from modelgrid.cli.story import tell

    clock = _clock(answer.now)
    state, reason, _ = headline(answer, clock)
    said = {"headline": f"{answer.model.name} is {state}{reason}", "next": list(prospects(answer, clock))}
    return {**_plain(answer), **said, "story": [asdict(chapter) for chapter in tell(answer.events, clock)]}


def _plain(answer: Why | History) -> dict[str, Any]:
    """As data; of the facts behind an event those that are known."""
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(answer)
    for event in plain["events"]:
        if event["reason"] is None:
            del event["reason"]
        else:
            event["reason"] = {name: value for name, value in event["reason"].items() if value not in (None, (), [])}
    return plain


def _clock(now: float) -> Any:
    return lambda at: screen.moment(at, now)


def _window(since_s: float) -> str:
    from modelgrid.cli.clauses import lasting

    return {3600.0: "the last hour", 86400.0: "the last day"}.get(since_s, f"the last {lasting(since_s)}")


def _further(model: str, since_s: float) -> str:
    return "" if since_s >= 86400 else f" (further back: {screen.command('why', model, '--since', '1d')})"

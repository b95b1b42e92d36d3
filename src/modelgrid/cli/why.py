"""`modelgrid why MODEL`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.spec.units import format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from modelgrid.spec import ReplicaStatus, Why


@click.command(short_help="Explain the state of a model.")
@click.argument("model")
@click.option("--events", "-n", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many to show.")
@ask.json_option
def why(model: str, events: int, as_json: bool) -> None:
    """Explain MODEL: its state and the reason for it, and what was done about it, each time with the reason."""
    with ask.daemon() as client:
        answer = client.why(model, events)
    if as_json:
        screen.show_json(answer)
    else:
        screen.show(*_told(answer))


def _told(answer: Why) -> Iterator[RenderableType]:
    yield _headline(answer)
    for line in _facts(answer):
        yield screen.text(f"  {line}")
    if answer.model.behind:
        yield from _behind(answer)
        return
    for replica in answer.replicas:
        yield _replica(replica, answer.now)
    yield ""
    if not answer.events:
        yield screen.text("nothing has been done about it yet")
        return
    rows = [
        (screen.moment(event.at, answer.now), screen.state(event.what), event.replica or "", screen.brief(event.why))
        for event in answer.events
    ]
    yield screen.table(("TIME", "WHAT", "REPLICA", "WHY"), rows)


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


def _headline(answer: Why) -> Text:
    model = answer.model
    reason = f": {model.why}" if model.why else ""
    return screen.joined(screen.text(model.name, "bold"), " is ", screen.state(model.state), reason)


def _facts(answer: Why) -> Iterator[str]:
    model = answer.model
    if model.retry_at is not None:
        yield f"the next try is in {screen.age(model.retry_at - answer.now)}"
    if model.waiting:
        yield f"{model.waiting} request{' waits' if model.waiting == 1 else 's wait'} for it"
    if model.wish:
        yield f"it was asked by hand to be {model.wish}"
    if model.note:
        yield model.note
    if model.state in ("failed", "unavailable", "starting") and any(event.replica for event in answer.events):
        yield f"what its engine wrote: {screen.command('logs', model.name)}"


def _replica(replica: ReplicaStatus, now: float) -> Text:
    reason = screen.brief(replica.step or replica.why)
    phases = ", ".join(f"{phase} {format_seconds(seconds)}" for phase, seconds in replica.phases.items())
    return screen.joined(
        f"  replica {replica.id}: ",
        screen.state(replica.state),
        f" for {screen.age(now - replica.since)}",
        f", {reason}" if reason else "",
        f" (start: {phases})" if phases else "",
    )

"""`modelgrid logs MODEL`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen

if TYPE_CHECKING:
    from modelgrid.client import ControlClient
    from modelgrid.spec import LogLines

_POLL_S = 0.5
_POLL_LINES = 1000  # an engine that writes more between two looks is told of with a gap


@click.command(short_help="Show what the replicas of a model wrote.")
@click.argument("model")
@click.option("--lines", "-n", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Of each replica.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
def logs(model: str, lines: int, follow: bool) -> None:
    """Show the last lines that the replicas of MODEL wrote, also those of the last one that has gone."""
    with ask.daemon() as client:
        shown = client.logs(model, lines)
        for log in shown:
            _print(log.replica, log.lines, titled=len(shown) > 1)
        if not any(log.lines for log in shown):
            click.echo(
                f"{model} has written nothing yet (what is known of it: {screen.command('why', model)})", err=True
            )
        if follow:
            try:
                _follow(client, model)
            except KeyboardInterrupt:
                pass


def _follow(client: ControlClient, model: str) -> None:
    before = _by_replica(client.logs(model, _POLL_LINES))
    last = list(before)[-1] if before else None
    while True:
        time.sleep(_POLL_S)
        now = _by_replica(client.logs(model, _POLL_LINES))
        for replica, lines in now.items():
            if fresh := new_lines(before.get(replica, ()), lines):
                _print(replica, fresh, titled=replica != last)
                last = replica
        before = now


def new_lines(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """What `now` has after the longest end of `before` that it starts with.

    Both are the last lines of one growing log, so `now` is `before` moved up: its new lines are the rest.
    """
    for size in range(min(len(before), len(now)), 0, -1):
        if before[-size] == now[0] and before[-size:] == now[:size]:
            return now[size:]
    return now


def _by_replica(logs: Sequence[LogLines]) -> dict[str, tuple[str, ...]]:
    return {log.replica: log.lines for log in logs}


def _print(replica: str, lines: Sequence[str], *, titled: bool) -> None:
    if titled:
        click.echo(f"==> {replica} <==")
    for line in lines:
        click.echo(line)

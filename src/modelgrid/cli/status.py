"""`modelgrid status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import NOT_RUNNING, START_IT, Failure, NotRunningFailure

if TYPE_CHECKING:
    from rich.console import RenderableType

    from modelgrid.spec import Status

_REFRESH_S = 1.0


@click.command(short_help="Show models, replicas and memory.")
@click.option("--watch", "-w", is_flag=True, help="Refresh in place each second, until Ctrl-C.")
@ask.json_option
def status(watch: bool, as_json: bool) -> None:
    """Show what is served: models, their replicas, memory, and why each is as it is."""
    if watch and as_json:
        raise click.UsageError("--watch is for people: leave out --json, or ask again and again")
    if watch:
        _watch()
    elif as_json:
        _print_json()
    else:
        screen.show(*_picture())


def _picture() -> list[RenderableType]:
    from modelgrid.cli.picture import picture

    out = screen.console()
    return picture(_ask(), columns=out.width if out.is_terminal else None)


def _ask() -> Status:
    with ask.daemon() as client:
        return client.status()


def _print_json() -> None:
    import msgspec

    try:
        screen.show_json({"running": True, **msgspec.to_builtins(_ask())})
    except NotRunningFailure as failure:
        screen.show_json({"running": False, "message": failure.message})
        raise SystemExit(NOT_RUNNING) from failure


def _watch() -> None:
    from rich.live import Live

    out = screen.console()
    if not out.is_terminal:
        raise click.UsageError("--watch needs a terminal (without it, status prints once)")
    with Live(console=out, auto_refresh=False) as live:
        try:
            while True:
                live.update(screen.stacked(_moment()), refresh=True)
                time.sleep(_REFRESH_S)
        except KeyboardInterrupt:
            pass


def _moment() -> list[RenderableType]:
    """The picture now. A daemon that is away may come back, so that ends nothing."""
    try:
        return _picture()
    except NotRunningFailure:
        return [screen.text(f"modelgrid is not running ({START_IT})", "yellow")]
    except Failure as failure:
        return [screen.text(failure.message, "red")]

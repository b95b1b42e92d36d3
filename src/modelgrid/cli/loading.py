"""Waiting until a model is ready, and telling meanwhile what its start is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from modelgrid.cli import screen
from modelgrid.cli.failure import Failure

if TYPE_CHECKING:
    from modelgrid.client import ControlClient
    from modelgrid.spec import Why

_POLL_S = 0.3
# A model that had failed before it was asked for shows that failure until the controller has looked again.
_OLD_NEWS_S = 5.0


def wait_until_ready(client: ControlClient, model: str, *, since: float, timeout_s: float) -> None:
    """Return when `model`, which was asked for at `since` (the daemon's clock), is ready. Raises Failure."""
    deadline = time.monotonic() + timeout_s
    with _telling() as tell:
        while True:
            seen = client.why(model)
            if seen.model.state == "ready":
                return
            if why := _failed(seen, since):
                raise Failure(f"cannot load {model}: {why} (what it wrote: {screen.command('logs', model)})")
            if time.monotonic() >= deadline:
                raise Failure(
                    f"cannot load {model}: it is still {seen.model.state} after {screen.age(timeout_s)} "
                    f"(see: {screen.command('why', model)})"
                )
            tell(f"{model} is {_doing(seen)}")
            time.sleep(_POLL_S)


def _failed(seen: Why, since: float) -> str | None:
    if seen.model.state not in ("failed", "unavailable"):
        return None
    new = [event.why for event in seen.events if event.what in ("failed", "refuse") and event.at >= since]
    if new or seen.now - since > _OLD_NEWS_S:
        return seen.model.why or (new[-1] if new else seen.model.state)
    return None


def _doing(seen: Why) -> str:
    steps = [replica.step or replica.why for replica in seen.replicas if replica.state == "starting"]
    told = next((step for step in steps if step), seen.model.why)
    return f"{seen.model.state}: {told}" if told else seen.model.state


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """On a terminal one line that changes, else a line for each change; on standard error either way."""
    out = screen.console(stderr=True)
    if out.is_terminal:
        with out.status("") as spinner:
            yield lambda line: spinner.update(screen.text(line))
        return
    told = ""

    def once(line: str) -> None:
        nonlocal told
        if line != told:
            click.echo(line, err=True)
            told = line

    yield once

"""What `modelgrid serve` says: each step of what is being loaded, then where to send requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import click

from modelgrid.cli import screen
from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config import Config
from modelgrid.config.paths import Paths
from modelgrid.spec import ModelStatus, Status
from modelgrid.spec.operations import CHAT, EMBEDDINGS
from modelgrid.spec.units import format_bytes, format_seconds

_POLL_S = 0.25
_SETTLED = frozenset({"ready", "failed", "unavailable"})


class Announcer:
    """Follows the control API and prints news on standard error."""

    def __init__(self, paths: Paths, config: Config, *, hub: bool) -> None:
        self._paths = paths
        self._config = config
        self._hub = hub
        self._states: dict[str, str] = {}
        self._steps: dict[str, str] = {}
        self._begun = time.monotonic()
        self._is_told = False
        self._out = screen.console(stderr=True)

    async def announce(self, stopping: asyncio.Event) -> None:
        """Print news until `stopping` is set."""
        self._say_what()
        with ControlClient(self._paths.api_socket) as client, self._spinner() as spin:
            while not stopping.is_set():
                with contextlib.suppress(NotRunning, ControlError):
                    status = await asyncio.to_thread(client.status)
                    self._news(status)
                    spin(self._doing(status))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _POLL_S)
            spin("stopping: requests in flight may finish (Ctrl-C again doesn't wait)")
        click.echo("stopping …", err=True)

    def _say_what(self) -> None:
        if self._config.path is not None:
            click.echo(f"configuration: {self._config.path}", err=True)
        elif self._hub:
            click.echo(
                "no configuration found: serving the built-in default (modelgrid config init makes one)", err=True
            )
        else:
            click.echo(
                "no configuration and no model hub found: serving a stand-in that speaks nonsense for text, "
                "and real MiniLM embeddings",
                err=True,
            )

    def _news(self, status: Status) -> None:
        for model in status.models:
            self._say_step(model, status)
            if self._states.get(model.name) == model.state:
                continue
            before = self._states.get(model.name)
            self._states[model.name] = model.state
            self._say_state(model, status, before)
        kept = [model for model in status.models if model.min or model.wish == "loaded"]
        if not self._is_told and status.workers and all(model.state in _SETTLED for model in kept):
            self._is_told = True
            self._say_where(status)

    def _say_step(self, model: ModelStatus, status: Status) -> None:
        """Where no spinner turns, each step is a line: the phase, not each of its details."""
        if self._out.is_terminal:
            return
        for replica in status.replicas:
            step = (replica.step or "").partition(":")[0]
            if replica.model == model.name and step and self._steps.get(replica.id) != step:
                self._steps[replica.id] = step
                click.echo(f"  {model.name}: {step}", err=True)

    def _say_state(self, model: ModelStatus, status: Status, before: str | None) -> None:
        if model.state == "ready":
            replica = next((r for r in status.replicas if r.model == model.name and r.state == "ready"), None)
            took = f" in {format_seconds(sum(replica.phases.values()))}" if replica and replica.phases else ""
            holds = f", {format_bytes(replica.resident_bytes)}" if replica and replica.resident_bytes else ""
            note = f" ({model.note})" if model.note else ""
            click.echo(f"{click.style('ready', fg='green')}   {model.name}{took}{holds}{note}", err=True)
        elif model.state in ("failed", "unavailable"):
            click.echo(f"{click.style(model.state, fg='red')}  {model.name}: {model.why}", err=True)
        elif before == "ready":
            click.echo(f"{model.state}  {model.name}: {model.why}", err=True)

    def _say_where(self, status: Status) -> None:
        click.echo(f"\nmodelgrid serves {status.address}/v1\n", err=True)
        if (line := _example(status)) is not None:
            click.echo(f"{line}\n", err=True)

    def _doing(self, status: Status) -> str:
        steps = [f"{replica.model}: {replica.step}" for replica in status.replicas if replica.step]
        if not steps:
            return "" if self._is_told else "starting"
        return f"{'   '.join(steps)}   {format_seconds(time.monotonic() - self._begun)}"

    @contextlib.contextmanager
    def _spinner(self) -> Iterator[Callable[[str], None]]:
        if not self._out.is_terminal:
            yield lambda _: None
            return
        spinner = self._out.status("starting")

        def spin(text: str) -> None:
            if text:
                spinner.update(screen.text(text))
                spinner.start()
            else:
                spinner.stop()

        try:
            yield spin
        finally:
            spinner.stop()


def _example(status: Status) -> str | None:
    """A line to paste: the first model that can be used, preferably a chat."""
    for operation in (CHAT, EMBEDDINGS):
        for model in status.models:
            if operation in model.operations and model.state not in ("failed", "unavailable"):
                return _curl(status.address, model.name, operation)
    return None


def _curl(address: str, model: str, operation: str) -> str:
    if operation == CHAT:
        path, body = "chat/completions", f'{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}'
    else:
        path, body = "embeddings", f'{{"model":"{model}","input":"Hello"}}'
    return f"curl {address}/v1/{path} -H 'Content-Type: application/json' \\\n  -d '{body}'"

"""What `modelgrid serve` says: each step of what is being loaded, where to send requests, and what an end waits for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from modelgrid.cli import screen
from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config import Config
from modelgrid.config.paths import Paths
from modelgrid.spec import ModelStatus, Status
from modelgrid.spec.operations import CHAT, EMBEDDINGS
from modelgrid.spec.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.text import Text

    from modelgrid.daemon.children import Death

_POLL_S = 0.25
_ASK_TIMEOUT_S = 3.0
_SETTLED = frozenset({"ready", "failed", "unavailable"})
_FAILED = frozenset({"failed", "unavailable"})
_STATE_CELLS = len("unavailable")
_FRAME_CELLS = 2  # the spinner itself, which only the first line has
_STEPS_SHOWN = 6

# A phase, in the words of who waits for it.
_DOING = {
    "queued": "waiting for memory",
    "weights": "getting its weights",
    "environment": "making its environment",
    "spawn": "starting",
    "load": "loading",
    "first_request": "answering a first request",
}


class Announcer:
    """Follows the control API and prints news on standard error."""

    def __init__(self, paths: Paths, config: Config, *, hub: bool) -> None:
        self._paths = paths
        self._config = config
        self._hub = hub
        self._states: dict[str, str] = {}
        self._reasons: dict[str, str] = {}  # of failures that were told
        self._steps: dict[str, str] = {}
        self._deaths: dict[str, Death] = {}  # that were told
        self._begun = time.monotonic()
        self._is_told = False
        self._out = screen.console(stderr=True)

    async def announce(self, stopping: asyncio.Event, deaths: deque[Death]) -> None:
        """Print news until `stopping` is set, then what is waited for, until cancelled. Takes `deaths` of children."""
        try:
            await self._announce(stopping, deaths)
        except (OSError, SystemExit):  # nobody reads any more, which rich takes for the end: what serves goes on
            await stopping.wait()

    async def _announce(self, stopping: asyncio.Event, deaths: deque[Death]) -> None:
        self._say_what()
        with ControlClient(self._paths.api_socket, timeout_s=_ASK_TIMEOUT_S) as client, self._spinner() as spin:
            while not stopping.is_set():
                while deaths:
                    self._say_death(deaths.popleft())
                if (status := await _ask(client)) is not None:
                    await self._news(status, client)
                    spin(self._doing(status))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _POLL_S)
            self._say("\nstopping: requests in flight may finish (a second Ctrl-C doesn't wait for them)")
            while True:
                spin(_ending(await _ask(client)))
                await asyncio.sleep(_POLL_S)

    def _say(self, *parts: str | Text) -> None:
        """One line, which a terminal wraps between words."""
        self._out.print(screen.joined(*parts), soft_wrap=not self._out.is_terminal)

    def _say_what(self) -> None:
        if self._config.path is not None:
            self._say(f"configuration: {self._config.path}")
        elif self._hub:
            self._say("no configuration found: serving the built-in default (modelgrid config init writes one to edit)")
        else:
            self._say(
                "no configuration and no model hub found: serving a stand-in that speaks nonsense for text, "
                "and real MiniLM embeddings"
            )

    def _say_death(self, death: Death) -> None:
        """One that repeats is a line no more, once the pauses don't grow any longer."""
        if self._deaths.get(death.child) == death:
            return
        self._deaths[death.child] = death
        log = "modelgrid.log" if death.child == "controller" else f"{death.child}.log"
        again = f"in {format_seconds(death.again_in_s)}" if death.again_in_s else "at once"
        self._say(f"{death.child} died ({death.how}), again {again}; see {self._paths.logs / log}")

    async def _news(self, status: Status, client: ControlClient) -> None:
        for model in status.models:
            if model.behind:
                continue  # what is news of it is news of a model behind it
            self._say_step(model, status)
            before = self._states.get(model.name)
            if before != model.state:
                self._states[model.name] = model.state
                self._say_state(model, status, before)
        if not status.models and self._config.models:
            return  # the controller has not looked yet
        kept = [model for model in status.models if model.min or model.wish == "loaded"]
        if not self._is_told and status.workers and all(model.state in _SETTLED for model in kept):
            self._is_told = True
            self._say_where(status, asks_for_key=await _asks_for_key(client))

    def _say_step(self, model: ModelStatus, status: Status) -> None:
        """Where no spinner turns, each step is a line: the phase, not each of its details."""
        if self._out.is_terminal:
            return
        for replica in status.replicas:
            step = _phase(replica.step or "")
            if replica.model == model.name and step and self._steps.get(replica.id) != step:
                self._steps[replica.id] = step
                self._say(f"  {model.name}: {_DOING.get(step, step)}")

    def _say_state(self, model: ModelStatus, status: Status, before: str | None) -> None:
        word = screen.state(model.state.ljust(_STATE_CELLS))
        if model.state == "ready":
            self._reasons.pop(model.name, None)
            self._say(word, f"  {model.name}{_took(model, status)}")
            if model.note:
                self._say(" " * _STATE_CELLS, f"  ({model.note})")
        elif model.state in _FAILED:
            self._say_failure(model, status)
        elif before == "ready":
            self._say(word, f"  {model.name}: {screen.brief(model.why)}")

    def _say_failure(self, model: ModelStatus, status: Status) -> None:
        """Whole the first time: the last lines of its log are in it. The same again is a line."""
        word = screen.state(model.state.ljust(_STATE_CELLS))
        again = f" (next try in {screen.age(model.retry_at - status.now)})" if model.retry_at else ""
        lines = model.why.splitlines() or [""]
        if self._reasons.get(model.name) == lines[-1]:
            self._say(word, f"  {model.name}: {lines[0]}, as before{again}")
            return
        self._reasons[model.name] = lines[-1]  # of its log, which is where an engine tells what broke
        self._say(word, f"  {model.name}: ", "\n  ".join(lines))
        self._say(f"  more: {screen.command('why', model.name)}{again}")

    def _say_where(self, status: Status, *, asks_for_key: bool) -> None:
        address = _reachable(status.address)
        others = "" if address == status.address else f"  (listening on {urlsplit(status.address).netloc})"
        self._say("\nmodelgrid serves ", screen.text(f"{address}/v1", "bold"), others)
        cold = [model.name for model in status.models if model.state == "cold" and not model.behind]
        if cold:
            self._say(f"started by their first request: {', '.join(cold)}")
        if not status.models:
            self._say("no models are configured yet (start with: modelgrid config init)")
        if (line := _example(status, address, asks_for_key=asks_for_key)) is not None:
            self._out.print(screen.text(f"\n{line}\n"), soft_wrap=True)  # to be pasted as it is

    def _doing(self, status: Status) -> str:
        steps = [f"{replica.model}: {_told(replica.step)}" for replica in status.replicas if replica.step]
        if not steps:
            return "" if self._is_told else "starting"
        shown = steps[:_STEPS_SHOWN] + ([f"and {len(steps) - _STEPS_SHOWN} more"] if len(steps) > _STEPS_SHOWN else [])
        took = format_seconds(time.monotonic() - self._begun)
        return f"{took}  " + f"\n{' ' * (len(took) + _FRAME_CELLS)}  ".join(shown)

    @contextlib.contextmanager
    def _spinner(self) -> Iterator[Callable[[str], None]]:
        if not self._out.is_terminal:
            yield lambda _: None
            return
        spinner = self._out.status("starting")

        def spin(text: str) -> None:
            if text:
                spinner.update(screen.text("\n".join(self._cut(line) for line in text.splitlines())))
                spinner.start()
            else:
                spinner.stop()

        try:
            yield spin
        finally:
            spinner.stop()

    def _cut(self, line: str) -> str:
        room = self._out.width - _FRAME_CELLS - 1
        return line if len(line) <= room else line[: room - 1] + "…"


async def _ask(client: ControlClient) -> Status | None:
    with contextlib.suppress(NotRunning, ControlError):
        return await asyncio.to_thread(client.status)
    return None


async def _asks_for_key(client: ControlClient) -> bool:
    with contextlib.suppress(NotRunning, ControlError):
        return any(key.revoked is None for key in await asyncio.to_thread(client.keys))
    return False


def _phase(step: str) -> str:
    return step.partition(":")[0]


def _told(step: str | None) -> str:
    phase, _, detail = (step or "").partition(": ")
    return detail if phase in ("environment", "weights") and detail else _DOING.get(phase, phase)


def _took(model: ModelStatus, status: Status) -> str:
    replica = next((r for r in status.replicas if r.model == model.name and r.state == "ready"), None)
    if replica is None:
        return ""
    took = f" in {format_seconds(sum(replica.phases.values()))}" if replica.phases else ""
    return took + (f", {format_bytes(replica.resident_bytes)}" if replica.resident_bytes else "")


def _ending(status: Status | None) -> str:
    """What an end waits for, as far as anybody knows."""
    if status is None or not status.replicas:
        return "stopping"
    waiting = sum(replica.in_flight or 0 for replica in status.replicas)
    requests = f"{waiting} request{'' if waiting == 1 else 's'} in flight, " if waiting else ""
    count = len(status.replicas)
    return f"stopping: {requests}{count} replica{'' if count == 1 else 's'} to end"


def _reachable(address: str) -> str:
    """The address as this machine's own users write it: one that means all addresses can't be asked everywhere."""
    parts = urlsplit(address)
    if parts.hostname not in ("0.0.0.0", "::"):  # noqa: S104  compared, not bound
        return address
    host = "127.0.0.1" if parts.hostname == "0.0.0.0" else "[::1]"  # noqa: S104
    return urlunsplit(parts._replace(netloc=f"{host}:{parts.port}"))


def _example(status: Status, address: str, *, asks_for_key: bool) -> str | None:
    """Lines to paste: the first model that can be used, a chat if there is one, rather one that is there already."""
    usable = [model for model in status.models if model.state not in _FAILED]
    for operation in (CHAT, EMBEDDINGS):
        able = [model for model in usable if operation in model.operations]
        if able:
            ready = [model for model in able if model.state == "ready"]
            return _curl(address, (ready or able)[0].name, operation, asks_for_key=asks_for_key)
    return None


def _curl(address: str, model: str, operation: str, *, asks_for_key: bool) -> str:
    body: dict[str, object]
    if operation == CHAT:
        path, body = "chat/completions", {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    else:
        path, body = "embeddings", {"model": model, "input": "Hello"}
    lines = [f"curl {address}/v1/{path}"]
    if asks_for_key:
        lines.append('-H "Authorization: Bearer $KEY"')
    lines.append("-H 'Content-Type: application/json'")
    lines.append(f"-d {shlex.quote(json.dumps(body, ensure_ascii=False, separators=(',', ':')))}")
    return " \\\n  ".join(lines)

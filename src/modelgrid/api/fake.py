"""The fake of `Control`, which answers what it was given, and a daemon that has nothing but it and the API."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelgrid.api.app import create_app
from modelgrid.api.serve import serve_api
from modelgrid.spec import LogLines, ModelStatus, ReplicaStatus, Status
from modelgrid.spec.fit import Asked, Fit
from modelgrid.store import Store


@dataclass
class FakeControl:
    """A controller that does nothing by itself: what it shows is what was put into it."""

    picture: Status
    lines: dict[str, list[LogLines]] = field(default_factory=dict)
    yaml: str = "models: {}\n"
    page: bytes = b""
    answer: Fit | None = None  # to every question of `fit`
    asked: Asked | None = None  # the last one
    wakes: int = 0
    woken: threading.Event = field(default_factory=threading.Event)

    def status(self) -> Status:
        return self.picture

    async def logs(self, model: str, lines: int) -> Sequence[LogLines]:
        return [LogLines(log.replica, log.lines[-lines:]) for log in self.lines[model]]

    async def fit(self, asked: Asked) -> Fit:
        self.asked = asked
        if self.answer is None:
            raise ValueError(f"cannot fit {asked.model}: the fake was given no answer")
        return self.answer

    async def metrics(self) -> bytes:
        return self.page

    def wake(self) -> None:
        self.wakes += 1
        self.woken.set()

    def config(self) -> str:
        return self.yaml

    def names(self) -> Mapping[str, str]:
        return {name: model.name for model in self.picture.models for name in (model.name, *model.aliases)}

    def show(self, *models: ModelStatus, replicas: tuple[ReplicaStatus, ...] = ()) -> None:
        """Have these models and replicas instead of what was there."""
        self.picture = replace(self.picture, models=models, replicas=replicas)


@contextmanager
def fake_daemon(control: FakeControl, store: Store, socket: Path) -> Iterator[None]:
    """Serve the control API at `socket` from a thread, until the block ends."""
    running = _Running(control, store, socket)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve()))
    thread.start()
    try:
        running.started.wait()
        yield
    finally:
        running.end()
        thread.join()


class _Running:
    def __init__(self, control: FakeControl, store: Store, socket: Path) -> None:
        self.started = threading.Event()
        self._app = create_app(control, store)
        self._socket = socket
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    async def serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        serving = asyncio.create_task(serve_api(self._app, self._socket, self._stop))
        try:
            # The socket listens once serve_api has had its first turn: what connects from then on is answered.
            await asyncio.sleep(0)
        finally:
            self.started.set()
        await serving

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

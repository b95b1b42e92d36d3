"""A real controller on a stage: replicas in memory, engines and a worker as real sockets, and a clock that can jump."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from modelgrid.config import Config, ConfigError, ConfigProblem, GatewayConfig
from modelgrid.config.paths import Paths
from modelgrid.controller import Controller, Launches, Settings
from modelgrid.runtimes.fake import FakeRuntime
from modelgrid.runtimes.fake import World as FakeWorld
from modelgrid.spec import (
    Demand,
    Failures,
    Hello,
    Load,
    Machine,
    ModelName,
    ModelSpec,
    ModelStatus,
    Outcome,
    Route,
    RoutingTable,
    Scaling,
    cpu_machine,
)
from modelgrid.spec.messages import Series, decode_table, encode
from modelgrid.store import MemoryStore, Store

PATIENCE_S = 15.0
MACHINE_BYTES = 10


async def until(holds: Callable[[], object], what: str = "the condition holds") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"nothing happened: {what}"
        await asyncio.sleep(0.005)


@dataclass
class Clock:
    """The time of day, and what a test has added to it."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Engine:
    """An engine's HTTP server: it answers everything with `status`, and counts by path."""

    def __init__(self, port: int, server: asyncio.Server) -> None:
        self.port = port
        self.status = 200
        self.statuses: dict[str, int] = {}  # by path, where it is another
        self.bodies: dict[str, bytes] = {}  # by path, where it is no empty object
        self.asked: list[str] = []
        self.keys: set[str] = set()
        self._server = server

    def status_of(self, path: str) -> int:
        return self.statuses.get(path, self.status)

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


async def open_engine() -> Engine:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))
                }
                await reader.readexactly(int(lines.get("content-length", "0")))
                engine.asked.append(head.split(" ")[1])
                engine.keys.add(lines.get("authorization", ""))
                body = engine.bodies.get(engine.asked[-1], b"{}")
                status = engine.status_of(engine.asked[-1])
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    engine = Engine(server.sockets[0].getsockname()[1], server)
    return engine


class Worker:
    """A scripted gateway worker: it says what it is told to, and acknowledges tables unless it `is_silent`."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tables: list[RoutingTable] = []
        self.in_flight: dict[str, int] = {}
        self.is_silent = False
        self.acknowledges: int | None = None  # the last table that it acts on; None: each
        self._writer = writer
        self._reading = asyncio.create_task(self._read(reader))
        self._beating = asyncio.create_task(self._beat())
        self._say(Hello(worker=name, pid=1))

    @property
    def table(self) -> RoutingTable:
        return self.tables[-1]

    def route(self, model: str) -> Route:
        return next(route for route in self.table.routes if route.model == model)

    def is_routed(self, model: str) -> bool:
        return bool(self.tables) and any(route.model == model and route.targets for route in self.table.routes)

    def demand(self, model: str, waiting: int, oldest_s: float = 0.0) -> None:
        self._say(Demand(model=model, waiting=waiting, oldest_s=oldest_s))

    def load(self, requests: dict[str, int] | None = None, meters: tuple[Series, ...] = ()) -> None:
        if self.tables and not self.is_silent:
            number = self.table.number if self.acknowledges is None else min(self.acknowledges, self.table.number)
            self._say(Load(table=number, in_flight=dict(self.in_flight), requests=requests or {}, meters=meters))

    def outcome(self, replica: str) -> None:
        self._say(Outcome(replica=replica, outcome="refused", why="nobody answers"))

    def say_raw(self, line: bytes) -> None:
        self._writer.write(line)

    async def close(self) -> None:
        for task in (self._reading, self._beating):
            task.cancel()
        await asyncio.gather(self._reading, self._beating, return_exceptions=True)
        self._writer.close()

    def _say(self, message: Hello | Demand | Load | Outcome) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.tables.append(decode_table(line))
            self.load()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self.load()


@dataclass
class Stage:
    """All that stands around one controller, and outlives it."""

    paths: Paths
    store: Store
    clock: Clock
    fakes: FakeWorld
    config: Config
    machine: Machine = field(default_factory=lambda: cpu_machine(MACHINE_BYTES))
    bad_config: str | None = None
    engines: list[Engine] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    _controller: Controller | None = None
    _running: asyncio.Task[None] | None = None

    @property
    def controller(self) -> Controller:
        assert self._controller is not None
        return self._controller

    def configure(self, *models: ModelSpec) -> None:
        """Write another configuration; a running controller takes it up by itself."""
        digest = str(int(self.config.digest or 0) + 1)
        self.config = replace(self.config, models=models, digest=digest)
        self.clock.ahead_s += 2.0
        if self._controller is not None:
            self._controller.wake()

    async def begin(self) -> Controller:
        fake = FakeRuntime(self.fakes)
        self._controller = Controller(
            paths=self.paths,
            settings=Settings(self._load),
            store=self.store,
            runtimes={"process": fake},
            launches=Launches(self.machine, self.paths.models, self.store.secret()),
            measure=lambda: self.machine,
            clock=self.clock,
        )
        self._running = asyncio.create_task(self._controller.run())
        await until(self.paths.link_socket.exists)
        return self._controller

    async def kill(self) -> None:
        """End the controller as a crash does: nothing is stopped."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def ended(self) -> None:
        """Wait until the controller has ended by itself."""
        assert self._running is not None
        await asyncio.wait_for(self._running, PATIENCE_S)
        self._running = None

    async def worker(self, name: str = "w1") -> Worker:
        reader, writer = await asyncio.open_unix_connection(str(self.paths.link_socket), limit=1 << 20)
        found = Worker(name, reader, writer)
        self.workers.append(found)
        return found

    async def engine(self) -> Engine:
        found = await open_engine()
        self.engines.append(found)
        return found

    def model(self, name: str = "a") -> ModelStatus:
        return next(model for model in self.controller.status().models if model.name == name)

    def states(self) -> dict[str, str]:
        return {replica.id: replica.state for replica in self.controller.status().replicas}

    def jump(self, seconds: float) -> None:
        self.clock.ahead_s += seconds
        self.controller.wake()

    async def passes(self, seconds: float) -> None:
        """Wait until a lap has seen the time of day `seconds` later than the last one did."""
        later = self.controller.status().now + seconds
        self.controller.wake()
        await until(lambda: self.controller.status().now >= later)

    async def failures(self, model: str, count: int) -> Failures:
        """Wait until `model` has failed `count` times."""
        name = ModelName(model)
        await until(lambda: self.store.saved().failures.get(name, Failures()).count == count)
        return self.store.saved().failures[name]

    async def routed(self, worker: Worker, model: str) -> None:
        await until(lambda: worker.is_routed(model), f"{model} is routed to")

    async def becomes(self, **expected: str) -> None:
        """Wait until the replicas are these; `a_1="ready"` is replica a-1."""
        wanted = {id.replace("_", "-"): state for id, state in expected.items()}
        await until(lambda: self.states() == wanted, f"{self.states()} becomes {wanted}")

    async def close(self) -> None:
        await self.kill()
        for worker in self.workers:
            await worker.close()
        for engine in self.engines:
            await engine.close()
        self.store.close()

    def _load(self) -> Config:
        if self.bad_config is not None:
            raise ConfigError([ConfigProblem(None, None, "", self.bad_config)], None)
        return self.config


def spec(
    name: str, engine: Engine | None = None, *, memory_bytes: int = 4, min: int = 0, max: int = 1, idle_s: float = 900.0
) -> ModelSpec:
    return ModelSpec(
        ModelName(name),
        "custom",
        command=("engine", "{port}"),
        memory_bytes=memory_bytes,
        port=engine.port if engine else 1,
        scaling=Scaling(min=min, max=max, idle_s=idle_s),
        stop_grace_s=5.0,
        start_timeout_s=60.0,
    )


Scene = Callable[[Stage], Awaitable[None]]


class Play(Protocol):
    def __call__(self, scene: Scene, *, store: Store | None = None, workers: int = 1) -> None: ...


@contextlib.asynccontextmanager
async def stage_in(folder: Path, store: Store | None, workers: int) -> AsyncIterator[Stage]:
    paths = Paths(folder, folder / "state", folder / "data", folder / "cache", folder / "run")
    paths.make()
    clock = Clock()
    config = Config(gateway=GatewayConfig(workers=workers), digest="0")
    stage = Stage(paths, store or MemoryStore(), clock, FakeWorld(clock), config)
    try:
        yield stage
    finally:
        await stage.close()

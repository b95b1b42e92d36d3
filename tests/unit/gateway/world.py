"""A real worker in this process, with a scripted engine, a controller's end of the link, and raw callers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.options import GatewayOptions
from modelgrid.gateway.rows import Rows
from modelgrid.gateway.worker import serve
from modelgrid.spec import AccessKey, Demand, Hello, KeyGroup, Load, Outcome, Route, RoutingTable, Target
from modelgrid.spec.messages import FromWorker, decode_from_worker, encode

PATIENCE_S = 10.0
T = TypeVar("T")


async def until(claim: Callable[[], T], what: str = "") -> T:
    """Wait until `claim` is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not (value := claim()):
            await asyncio.sleep(0.002)
    return value


@dataclass
class Asked:
    """A request as the engine got it."""

    line: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Send bytes of an answer."""
        self.writer.write(data)
        await self.writer.drain()

    async def sized(self, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        """Send a whole answer."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        await self.say(head.encode() + body)

    async def begin_events(self) -> None:
        """Begin a chunked stream of events."""
        await self.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        """Send a chunk; an empty one ends the answer."""
        await self.say(b"%x\r\n%b\r\n" % (len(data), data))

    def drop(self) -> None:
        """Lose the connection."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionResetError):
                while await self.reader.read(65536):
                    pass


Script = Callable[[Asked], Awaitable[None]]


async def echo(asked: Asked) -> None:
    """Answer with the request's body."""
    await asked.sized(asked.body)


class Engine:
    """Does what its script says with each request; the scripts of `once` come first, one a request."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.once: list[Script] = []
        self.asked: list[Asked] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def open_connections(self) -> int:
        """Those that stand now."""
        return len(self._writers)

    async def listen(self) -> None:
        """Take connections, on the port that it had before if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no connections, and lose those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    def target(self, replica: str, model: str = "m", key: str | None = None, slot: int = 0) -> Target:
        """How a table names it."""
        return Target(replica=replica, url=f"http://127.0.0.1:{self.port}/v1", model=model, key=key, slot=slot)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                asked = await self._read(reader, writer)
                self.asked.append(asked)
                await (self.once.pop(0) if self.once else self.script)(asked)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert len(headers) == len(lines), f"a header came twice: {lines}"
        body = await _read_body(reader, headers)
        return Asked(line, headers, body, reader, writer)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "transfer-encoding" not in headers:
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


class Controller:
    """The controller's end of the link."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[FromWorker] = []
        self.number = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        """Take workers."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def leave(self) -> None:
        """Be killed."""
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in list(self._writers):
            writer.transport.abort()
        await until(lambda: not self._writers, "the link is lost")

    async def publish(
        self,
        *routes: Route,
        keys: tuple[AccessKey, ...] = (),
        groups: tuple[KeyGroup, ...] = (),
        number: int | None = None,
    ) -> int:
        """Send a table, and wait until the worker acts on it."""
        await until(lambda: self._writers, "a worker")
        self.number = self.number + 1 if number is None else number
        heard = len(self.heard)
        self.say(RoutingTable(number=self.number, routes=routes, keys=keys, groups=groups))
        await until(
            lambda: any(isinstance(m, Load) and m.table == self.number for m in self.heard[heard:]), "a Load of it"
        )
        return self.number

    def say(self, table: RoutingTable) -> None:
        """Send a table, whatever becomes of it."""
        self.say_raw(encode(table))

    def say_raw(self, data: bytes) -> None:
        """Send bytes."""
        for writer in self._writers:
            writer.write(data)

    def of(self, kind: type[T]) -> list[T]:
        """The messages of one kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def hellos(self) -> list[Hello]:
        return self.of(Hello)

    @property
    def demands(self) -> list[Demand]:
        return self.of(Demand)

    @property
    def outcomes(self) -> list[Outcome]:
        return self.of(Outcome)

    @property
    def load(self) -> dict[str, int]:
        """What was last said to be in flight."""
        return self.of(Load)[-1].in_flight

    def metered(self, metric: str) -> dict[tuple[str, ...], tuple[float, ...]]:
        """A metric's values as they were last told, by their labels."""
        series = (series for load in self.of(Load) for series in load.meters if series.metric == metric)
        return {one.labels: one.values for one in series}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                self.heard.append(decode_from_worker(line))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@dataclass
class Answered:
    """An answer as a caller got it."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool = True


class Raw:
    """A caller who speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send bytes of a request."""
        self.writer.write(data)

    def post(self, path: str, body: bytes, headers: str = "") -> None:
        """Send a request with a body."""
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)

    def get(self, path: str, headers: str = "", method: str = "GET") -> None:
        """Send a request without one."""
        self.send(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())

    async def head(self) -> Answered:
        """Read an answer's head."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert len(headers) == len(lines), f"a header came twice: {lines}"
        return Answered(int(line.split(" ")[1]), headers, b"")

    async def chunk(self) -> bytes:
        """Read a chunk of the answer; empty at its end."""
        async with asyncio.timeout(PATIENCE_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self, *, to_head: bool = False) -> Answered:
        """Read a whole answer, or what there is of it."""
        answered = await self.head()
        while answered.status == 100:  # a sign of life
            answered = await self.head()
        if to_head or answered.status in (204, 304):
            return answered
        parts = []
        try:
            if answered.headers.get("transfer-encoding") == "chunked":
                while part := await self.chunk():
                    parts.append(part)
            elif "content-length" in answered.headers:
                async with asyncio.timeout(PATIENCE_S):
                    parts.append(await self.reader.readexactly(int(answered.headers["content-length"])))
            else:
                parts.append(await self.rest())
        except (asyncio.IncompleteReadError, ConnectionError):
            return replace(answered, body=b"".join(parts), is_whole=False)
        return replace(answered, body=b"".join(parts))

    async def rest(self) -> bytes:
        """Read until the other side closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def is_closed(self) -> bool:
        """Wait until the other side closes; nothing may come before."""
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        """Close the connection."""
        self.writer.close()


@dataclass
class World:
    """A worker and those around it."""

    options: GatewayOptions
    controller: Controller
    address: tuple[str, int]
    told: asyncio.Event
    told_again: asyncio.Event
    worker: asyncio.Task[None]
    counts: Ledger  # what the worker has in flight and waiting
    engines: list[Engine] = field(default_factory=list)

    @property
    def is_draining(self) -> bool:
        """The worker takes no connections any more."""
        with socket.socket() as probe:
            return probe.connect_ex(self.address) != 0

    async def rests(self, slots: int = 64) -> None:
        """Wait until nothing is in flight or waiting: at replicas, of keys and of models."""

        def counted() -> list[int]:
            return [count(slot) for slot in range(1, slots) for count in (self.counts.in_flight, self.counts.waiting)]

        with suppress(TimeoutError):
            await until(lambda: not any(counted()), "rest")
        assert not any(counted())
        await until(lambda: self.controller.load == {}, "a Load that says so")

    async def engine(self, script: Script = echo) -> Engine:
        """Another engine."""
        engine = Engine(script)
        await engine.listen()
        self.engines.append(engine)
        return engine

    async def call(self) -> Raw:
        """Another caller's connection."""
        return Raw(*await asyncio.open_connection(*self.address))

    async def post(self, path: str, body: bytes, headers: str = "") -> Answered:
        """One request by a connection of its own."""
        raw = await self.call()
        raw.post(path, body, headers)
        answered = await raw.answer()
        raw.leave()
        return answered

    async def get(self, path: str, headers: str = "") -> Answered:
        """One request by a connection of its own."""
        raw = await self.call()
        raw.get(path, headers)
        answered = await raw.answer()
        raw.leave()
        return answered


def route(
    *targets: Target, model: str = "m", operations: tuple[str, ...] = ("chat", "completions", "embeddings"), **more: Any
) -> Route:
    """A model, and where it is ready."""
    return Route(model=model, operations=operations, targets=targets, **more)


Scene = Callable[[World], Coroutine[Any, Any, None]]


class Play(Protocol):
    """Runs a scene; options are the worker's."""

    def __call__(self, scene: Scene, **options: Any) -> None: ...


@asynccontextmanager
async def world_of(
    folder: Path, *, table: RoutingTable | None = None, is_controlled: bool = True, **options: Any
) -> AsyncIterator[World]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    rows = Rows(2)
    own = {"link_socket": folder / "link", "table_file": folder / "table.json", "ledger": rows.path, "row": rows.take()}
    chosen = GatewayOptions(**{"worker": "w1", **own, **options})
    if table is not None:
        chosen.table_file.write_bytes(encode(table))
    told, told_again = asyncio.Event(), asyncio.Event()
    address = listener.getsockname()
    worker = asyncio.create_task(serve(listener, chosen, told, told_again))
    controller = Controller(folder / "link")
    if is_controlled:
        await controller.listen()
    world = World(chosen, controller, address, told, told_again, worker, Ledger.shared(rows.path, 1))
    try:
        yield world
    finally:
        told.set()
        told_again.set()
        await asyncio.wait_for(worker, PATIENCE_S)
        for engine in world.engines:
            await engine.refuse()
        await controller.leave()
        rows.close()

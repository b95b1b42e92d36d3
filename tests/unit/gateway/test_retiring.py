"""A worker that retires: callers turn to its successor at their own pace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from modelgrid.gateway import GatewayOptions
from modelgrid.gateway.worker import serve
from modelgrid.spec import RoutingTable
from modelgrid.spec.messages import encode

PATIENCE_S = 20.0
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@dataclass
class Retiree:
    """A worker, and what it is told."""

    port: int
    told: asyncio.Event
    retired: asyncio.Event
    ready: asyncio.Event
    end: asyncio.Task[None]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def refuses(self) -> bool:
        try:
            _, writer = await self.connect()
        except OSError:
            return True
        writer.close()
        return False


def play(scene: Callable[[Retiree], Awaitable[None]], *, has_table: bool = True) -> None:
    @contextlib.asynccontextmanager
    async def worker() -> AsyncIterator[Retiree]:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.json"
            if has_table:
                table.write_bytes(encode(RoutingTable(number=1)))
            options = GatewayOptions("w", link_socket=Path(folder) / "link.sock", table_file=table, grace_s=1.0)
            listener = socket.create_server(("127.0.0.1", 0))
            told, retired, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
            serving = serve(listener, options, told, asyncio.Event(), retired=retired, ready=ready.set)
            end = asyncio.create_task(serving)
            yield Retiree(listener.getsockname()[1], told, retired, ready, end)
            told.set()
            await asyncio.wait_for(end, PATIENCE_S)

    async def whole() -> None:
        async with asyncio.timeout(2 * PATIENCE_S), worker() as retiree:
            await scene(retiree)

    uvloop.run(whole())


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(HEALTH)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return head


def test_a_connection_has_one_more_request_answered_and_is_then_ended() -> None:
    async def scene(worker: Retiree) -> None:
        await worker.ready.wait()
        reader, writer = await worker.connect()
        assert b"connection: close" not in await _ask(reader, writer)
        worker.retired.set()
        while not await worker.refuses():
            await asyncio.sleep(0.01)
        assert b"connection: close" in await _ask(reader, writer)
        assert await reader.read() == b""
        await worker.end  # nobody is left

    play(scene)


def test_who_asks_nothing_more_is_not_waited_for_for_ever() -> None:
    async def scene(worker: Retiree) -> None:
        await worker.ready.wait()
        reader, writer = await worker.connect()
        await _ask(reader, writer)
        worker.retired.set()
        assert await reader.read() == b""
        await worker.end

    play(scene)


def test_who_is_told_to_end_while_it_retires_does_so_at_once() -> None:
    async def scene(worker: Retiree) -> None:
        await worker.ready.wait()
        reader, writer = await worker.connect()
        await _ask(reader, writer)
        worker.retired.set()
        while not await worker.refuses():
            await asyncio.sleep(0.01)
        worker.told.set()
        async with asyncio.timeout(2.0):
            assert await reader.read() == b""
            await worker.end

    play(scene)


@pytest.mark.parametrize("has_table", [True, False])
def test_a_worker_is_ready_once_it_has_a_table(has_table: bool) -> None:
    async def scene(worker: Retiree) -> None:
        while await worker.refuses():
            await asyncio.sleep(0.01)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.ready.wait(), 0.5)
        assert worker.ready.is_set() == has_table

    play(scene, has_table=has_table)

"""A gateway worker: a process that serves callers on a listening socket until it is told to end."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket

import structlog
import uvloop

from modelgrid.gateway.connection import ClientConnection
from modelgrid.gateway.gateway import Gateway
from modelgrid.gateway.options import GatewayOptions

_log = structlog.get_logger()

_BACKLOG = 2048  # connections that the kernel holds until they are accepted
_LAST_WORDS_S = 1.0  # for answers that are written when the grace time is over


def run_worker(listener: socket.socket, options: GatewayOptions) -> None:
    """Serve until SIGTERM, and then until what is in flight has ended or `options.grace_s` has passed. A second
    SIGTERM ends at once. SIGINT is left to the parent, whose terminal sends it to all."""
    _allow_many_files()
    uvloop.run(_run(listener, options))


async def _run(listener: socket.socket, options: GatewayOptions) -> None:
    told = asyncio.Event()
    told_again = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: (told_again if told.is_set() else told).set())
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await serve(listener, options, told, told_again)


async def serve(
    listener: socket.socket, options: GatewayOptions, told: asyncio.Event, told_again: asyncio.Event
) -> None:
    """Serve on `listener` until `told`; then finish what is there, for the grace time or until `told_again`.

    A worker that can't speak with the controller any more, for a defect, would serve its last table for ever: it ends
    in the same way, and raises."""
    loop = asyncio.get_running_loop()
    gateway = Gateway(loop, options)
    gateway.board.read_table_file()
    server = await loop.create_server(lambda: ClientConnection(gateway), sock=listener, backlog=_BACKLOG)
    failed = asyncio.Event()
    tasks = [loop.create_task(gateway.board.link.run()), loop.create_task(gateway.board.run())]
    for task in tasks:
        task.add_done_callback(lambda _: failed.set())
    _log.info("worker serves", worker=options.worker)
    try:
        await _either(told, failed)
        server.close()
        _log.info("worker drains", worker=options.worker, connections=len(gateway.connections))
        gateway.drain()
        await _either(gateway.is_empty, told_again, options.grace_s)
        for connection in list(gateway.connections):
            connection.cut()
        if not told_again.is_set():
            await _either(gateway.is_empty, told_again, _LAST_WORDS_S)
        for connection in list(gateway.connections):
            connection.abort()
        _log.info("worker ends", worker=options.worker)
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        gateway.board.close()
    for end in ends:
        if isinstance(end, Exception):
            _log.error("worker failed", worker=options.worker, exc_info=end)
            raise end


async def _either(first: asyncio.Event, second: asyncio.Event, limit_s: float | None = None) -> None:
    """Until one of two events, or until `limit_s` have passed."""
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    _, pending = await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()


def _allow_many_files() -> None:
    """A connection is a file, here and at the engine: take as many as the system gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

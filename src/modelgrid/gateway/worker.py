"""A gateway worker: a process that serves callers on a listening socket until it is told to end."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

import structlog
import uvloop

from modelgrid.gateway import connection
from modelgrid.gateway.certificate import Certificate, accepting
from modelgrid.gateway.connection import ClientConnection
from modelgrid.gateway.door import Door
from modelgrid.gateway.gateway import Gateway
from modelgrid.gateway.options import GatewayOptions

_log = structlog.get_logger()

_BACKLOG = 2048  # connections that the kernel holds until they are accepted
_TURN_S = 5.0  # for callers of a retired worker to send another request, whose answer tells them to connect anew
_LOOK_S = 0.02  # between two looks for a first table
_LAST_WORDS_S = 1.0  # for answers that are written when the grace time is over, and then for the controller to hear


def run_worker(listener: socket.socket, options: GatewayOptions, ready: Callable[[], object] = lambda: None) -> None:
    """Serve until SIGTERM, and then until what is in flight has ended or `options.grace_s` has passed. A second
    SIGTERM ends at once. SIGINT is left to the parent, whose terminal sends it to all.

    `ready` is called when callers are served by a table. SIGUSR1 says that a successor is: see `serve`."""
    _allow_many_files()
    uvloop.run(_run(listener, options, ready))


def is_compiled() -> bool:
    """The request path is compiled: see `hatch_build.py`."""
    return not connection.__file__.endswith(".py")


async def _run(listener: socket.socket, options: GatewayOptions, ready: Callable[[], object]) -> None:
    told = asyncio.Event()
    told_again = asyncio.Event()
    retired = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: (told_again if told.is_set() else told).set())
    loop.add_signal_handler(signal.SIGUSR1, retired.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await serve(listener, options, told, told_again, retired=retired, ready=ready)


async def serve(
    listener: socket.socket,
    options: GatewayOptions,
    told: asyncio.Event,
    told_again: asyncio.Event,
    *,
    retired: asyncio.Event | None = None,
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Serve on `listener` until `told`; then finish what is there, for the grace time or until `told_again`.

    One that is `retired` takes no more connections, and first lets callers turn to its successor: a connection between
    two requests stays for another one, since a caller may be sending it. Closed under its hands that request would
    fail. Its answer says that the connection ends.

    A worker that can't speak with the controller any more, for a defect, would serve its last table for ever: it ends
    in the same way, and raises."""
    loop = asyncio.get_running_loop()
    certificate = None if options.tls is None else Certificate(options.tls)
    gateway = Gateway(loop, options)
    gateway.board.read_table_file()
    close_door = await _open_door(listener, gateway, None if certificate is None else certificate.context)
    failed = asyncio.Event()
    tasks = [loop.create_task(gateway.board.link.run()), loop.create_task(gateway.board.run())]
    if certificate is not None:
        tasks.append(loop.create_task(certificate.watch()))
    for task in tasks:
        task.add_done_callback(lambda _: failed.set())
    tasks.append(loop.create_task(_tell_ready(gateway, ready)))
    _log.info("worker serves", worker=options.worker, compiled=is_compiled())
    try:
        await _any(told, failed, *([retired] if retired else []))
        await close_door()
        if retired is not None and retired.is_set() and not told.is_set():
            await _turn_away(gateway, told, failed)
        _log.info("worker drains", worker=options.worker, connections=len(gateway.connections))
        gateway.drain()
        await _any(gateway.is_empty, told_again, limit_s=options.grace_s)
        for connection in list(gateway.connections):
            connection.cut()
        if not told_again.is_set():
            await _any(gateway.is_empty, told_again, limit_s=_LAST_WORDS_S)
        for connection in list(gateway.connections):
            connection.abort()
        await _any(gateway.is_empty, limit_s=_LAST_WORDS_S)
        await gateway.board.say_last(_LAST_WORDS_S)
        _log.info("worker ends", worker=options.worker)
    finally:
        await close_door()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        gateway.board.close()
        gateway.departures.close()
        if gateway.log is not None:
            gateway.log.close()
    for end in ends:
        if isinstance(end, Exception):
            _log.error("worker failed", worker=options.worker, exc_info=end)
            raise end


async def _open_door(
    listener: socket.socket, gateway: Gateway, tls: ssl.SSLContext | None
) -> Callable[[], Awaitable[None]]:
    """Take connections; what is answered ends that. Alone, the loop does it best."""

    def protocol() -> asyncio.Protocol:
        return cast(asyncio.Protocol, ClientConnection(gateway))  # it is one in all but its base: see `hatch_build.py`

    if gateway.options.workers > 1:
        ledger = gateway.board.ledger
        door = Door(gateway.loop, listener, ledger, protocol, lambda: len(gateway.connections), tls)
        gateway.left = door.tell
        door.open()
        return door.close
    server = await gateway.loop.create_server(protocol, sock=listener, backlog=_BACKLOG, **accepting(tls))

    async def close() -> None:
        server.close()

    return close


async def _tell_ready(gateway: Gateway, ready: Callable[[], object]) -> None:
    while gateway.board.routes is None:
        await asyncio.sleep(_LOOK_S)
    ready()


async def _turn_away(gateway: Gateway, *hurries: asyncio.Event) -> None:
    """Until no caller is left, or those who are have had time for another request."""
    gateway.is_draining = True
    _log.info("worker retires", connections=len(gateway.connections))
    await _any(gateway.is_empty, *hurries, limit_s=_TURN_S)


async def _any(*events: asyncio.Event, limit_s: float | None = None) -> None:
    """Until one of the events, or until `limit_s` have passed."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    _, pending = await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()


def _allow_many_files() -> None:
    """A connection is a file, here and at the engine: take as many as the system gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

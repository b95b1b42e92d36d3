"""The controller's end of the link to gateway workers: tables go out, the other three messages come in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import structlog

from modelgrid.spec import Hello, RoutingTable
from modelgrid.spec.messages import FromWorker, decode_from_worker, encode

_LINE_BYTES = 1 << 20
_BACKLOG_BYTES = 256 << 20  # of tables that a worker does not read; a slower one is cut off and comes again

log = structlog.get_logger()


class Link:
    """Listens for workers. `heard(worker, message)` gets `Hello` first; `lost(worker)` is called at the end."""

    def __init__(self, heard: Callable[[str, FromWorker], None], lost: Callable[[str], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._table: bytes | None = None
        self._writers: dict[str, asyncio.StreamWriter] = {}

    @contextlib.asynccontextmanager
    async def listen(self, path: Path) -> AsyncIterator[None]:
        """Serve workers at `path`, which only this user may open."""
        server = await asyncio.start_unix_server(self._serve, sock=_listener(path), limit=_LINE_BYTES)
        try:
            yield
        finally:
            server.close()
            for writer in self._writers.values():
                writer.close()
            _remove(path)

    def publish(self, table: RoutingTable) -> None:
        """Send `table` to every worker, and to each that comes later."""
        self._table = encode(table)
        for writer in self._writers.values():
            self._send(writer, self._table)

    def _send(self, writer: asyncio.StreamWriter, line: bytes) -> None:
        if writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            writer.transport.abort()
        else:
            writer.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker: str | None = None
        try:
            while line := await reader.readline():
                message = decode_from_worker(line)
                if isinstance(message, Hello):
                    worker = f"{message.worker}/{message.pid}"
                    self._writers[worker] = writer
                    if self._table is not None:
                        self._send(writer, self._table)
                if worker is not None:
                    self._heard(worker, message)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            log.warning("link.broken", worker=worker, why=str(error))
        finally:
            writer.close()
            if worker is not None and self._writers.get(worker) is writer:
                del self._writers[worker]
                self._lost(worker)


def _listener(path: Path) -> socket.socket:
    _remove(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # from its first moment nobody else may open it
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.setblocking(False)
    return listener


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

"""The link to the controller: routing tables come, demand, load and outcomes go. It is restored for ever."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import structlog

from modelgrid.gateway.options import LINK_BACKLOG_BYTES, LINK_RETRY_S, TABLE_BYTES
from modelgrid.spec import Hello, RoutingTable
from modelgrid.spec.messages import FromWorker, decode_table, encode

_log = structlog.get_logger()

_FLUSH_LOOK_S = 0.005


class Link:
    """A client of the controller's socket.

    `on_table` gets each table, and whether it is the first of its connection; `on_open` is called when a
    connection stands, after the Hello.
    """

    def __init__(
        self,
        socket: Path,
        worker: str,
        on_table: Callable[[RoutingTable, bool], None],
        on_open: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._worker = worker
        self.incarnation = secrets.token_hex(8)  # of this process
        self._on_table = on_table
        self._on_open = on_open
        self._connection: _Connection | None = None

    @property
    def is_open(self) -> bool:
        """A message can be sent now."""
        return self._connection is not None and not self._connection.is_full

    def send(self, message: FromWorker) -> None:
        """Send `message`, or drop it where nobody listens: what counts is sent again."""
        if self._connection is not None and not self._connection.is_full:
            self._connection.write(message)

    async def flush(self, limit_s: float) -> None:
        """Wait until what was sent is with the system, for `limit_s` at most."""
        try:
            async with asyncio.timeout(limit_s):
                while self._connection is not None and self._connection.has_unsent:
                    await asyncio.sleep(_FLUSH_LOOK_S)
        except TimeoutError:
            _log.warning("link is slow", worker=self._worker, why=f"last words were not taken within {limit_s:g} s")

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        first_s, longest_s = LINK_RETRY_S
        pause_s = first_s
        was_up = True  # the first failure is worth a line, the rest of a series isn't
        while True:
            try:
                up = await self._stay_connected()
                pause_s = first_s if up else min(pause_s * 2, longest_s)
                _log.warning("link lost", worker=self._worker, why="the controller closed it")
                was_up = True
            except OSError as error:
                if was_up:
                    _log.warning("link down", worker=self._worker, why=str(error))
                was_up = False
                pause_s = min(pause_s * 2, longest_s)
            await asyncio.sleep(pause_s)

    async def _stay_connected(self) -> bool:
        """Connect and stay so until it is lost; answers whether a table came."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: _Connection(self._on_table), str(self._socket))
        try:
            connection.write(Hello(worker=self._worker, pid=os.getpid(), incarnation=self.incarnation))
            self._connection = connection
            _log.info("link up", worker=self._worker)
            self._on_open()
            await connection.lost.wait()
            return connection.has_table
        finally:
            self._connection = None
            connection.close()


def read_table(path: Path) -> RoutingTable | None:
    """The table that an earlier controller left, if there is one that can be read."""
    try:
        return decode_table(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("table file ignored", path=str(path), why=str(error))
        return None


class _Connection(asyncio.Protocol):
    def __init__(self, on_table: Callable[[RoutingTable, bool], None]) -> None:
        self._on_table = on_table
        self._parts: list[bytes] = []
        self._size = 0
        self._transport: asyncio.Transport | None = None
        self.has_table = False
        self.lost = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._transport is None or self._transport.get_write_buffer_size() > LINK_BACKLOG_BYTES

    @property
    def has_unsent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def write(self, message: FromWorker) -> None:
        if self._transport is not None:
            self._transport.write(encode(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *ended, rest = data.split(b"\n")
        for line in ended:
            self._take(b"".join([*self._parts, line]))
            self._parts.clear()
            self._size = 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
        if self._size > TABLE_BYTES:
            _log.error("link dropped", why=f"a table is larger than {TABLE_BYTES} bytes")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._transport = None
        self.lost.set()

    def _take(self, line: bytes) -> None:
        try:
            table = decode_table(line)
        except msgspec.DecodeError as error:
            _log.error("table ignored", why=str(error))
            return
        is_first = not self.has_table
        self.has_table = True
        self._on_table(table, is_first)

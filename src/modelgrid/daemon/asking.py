"""A Unix socket on which the supervisor is asked to replace the gateway workers, and tells how it goes.

Whoever connects has asked. Each worker's outcome is a line of JSON, and the end of the stream is the end of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from modelgrid.daemon.workers import Replaced, Workers

_CONNECT_S = 3.0

log = structlog.get_logger()


class NobodyAsked(Exception):
    """No supervisor listens."""


def replace_workers(path: Path) -> Iterator[Replaced]:
    """Ask the supervisor that listens at `path`; each outcome as it is known. Raises NobodyAsked."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(_CONNECT_S)
        try:
            asked.connect(str(path))
        except OSError as error:
            raise NobodyAsked(str(error)) from error
        asked.settimeout(None)  # as long as workers may take
        with asked.makefile("rb") as lines:
            for line in lines:
                yield msgspec.json.decode(line, type=Replaced)


async def serve_asking(path: Path, workers: Workers) -> None:
    """Listen at `path` until cancelled. A supervisor that can't listen serves all the same."""
    try:
        server = await asyncio.start_unix_server(lambda _, writer: _answer(workers, writer), sock=_listener(path))
    except OSError as error:
        log.error("supervisor.cannot_be_asked", path=str(path), why=str(error))
        return
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


async def _answer(workers: Workers, writer: asyncio.StreamWriter) -> None:
    def tell(replaced: Replaced) -> None:
        writer.write(msgspec.json.encode(replaced) + b"\n")

    try:
        await workers.replace(tell)  # also for somebody who has gone
    finally:
        writer.close()


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # from its first moment nobody else may open it
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener

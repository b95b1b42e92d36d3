"""Serves the control API on a Unix socket that only its owner may open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

_BACKLOG = 128


class ApiError(Exception):
    """The control API can't be served; the text says why."""


async def serve_api(app: FastAPI, path: Path, stop: asyncio.Event, *, grace_s: int = 2) -> None:
    """Serve `app` at `path` until `stop` is set, then at most `grace_s` longer. Raises ApiError.

    A socket that a dead daemon left is replaced; one at which somebody answers is not.
    """
    listener = _listen(path)
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=grace_s, backlog=_BACKLOG
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        serving.cancel()
        listener.close()
        _remove(path)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the daemon's


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _answers(path):
            raise ApiError(f"cannot serve the control API at {path}: another modelgrid answers there (modelgrid stop)")
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)  # from its first moment nobody else may open it
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ApiError(f"cannot serve the control API at {path}: {error.strerror} (check the folder)") from error
    except ApiError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

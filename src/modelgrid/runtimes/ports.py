"""Ports: a free one on loopback, for a server that will bind it soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

HOST = "127.0.0.1"
_REST_S = 120.0  # a port handed out is not handed out again for so long: its server may bind it late
_TRIES = 200


class Ports:
    """Hands out free ports. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._recent: dict[int, float] = {}

    def choose(self, avoid: Collection[int]) -> int:
        """A port that nobody has bound and that was not handed out lately. Raises OSError."""
        now = time.monotonic()
        self._recent = {port: at for port, at in self._recent.items() if now - at < _REST_S}
        for _ in range(_TRIES):
            with socket.socket() as listener:
                listener.bind((HOST, 0))
                port: int = listener.getsockname()[1]
            if port not in self._recent and port not in avoid:
                self._recent[port] = now
                return port
        raise OSError("no free port was found on loopback")


def is_free(port: int) -> bool:
    """Whether a server could bind `port` now; connections that linger from its last server don't matter."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str | None:
    """Who listens on `port`, for people: ``process 812 (ollama)``. None when it can't be found out."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"process {connection.pid} ({_program(psutil.Process(connection.pid))})"
    except (psutil.Error, OSError):
        pass
    return None


def _program(process: psutil.Process) -> str:
    """What people know it by. Not its whole command line, which may hold secrets."""
    with suppress(psutil.Error):
        if any("modelgrid" in word for word in process.cmdline()[:4]):
            return "another modelgrid"
    return process.name()

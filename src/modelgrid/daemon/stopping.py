"""Ending everything: a daemon that runs, or what one that was killed has left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config import Config, ConfigError, load_text
from modelgrid.config.paths import Paths
from modelgrid.daemon import roles
from modelgrid.daemon.controller_process import runtimes_of
from modelgrid.daemon.leftovers import StopError, end_replicas
from modelgrid.daemon.roles import Role
from modelgrid.daemon.supervisor import patience_s, running_pid
from modelgrid.spec.units import format_seconds

_ASK_TIMEOUT_S = 3.0
_KILLED_S = 5.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Stopped:
    """What was ended."""

    daemon: bool  # a supervisor that ran
    processes: int  # controllers, workers and the like that one had left
    replicas: int  # engines that were left


def stop_everything(
    paths: Paths, config: Config, *, grace_s: float, tell: Callable[[str], None], limit_s: float | None = None
) -> Stopped:
    """End the daemon, and whatever is left of one. Returns when nothing is left. Raises StopError.

    A daemon that runs has the times of its own configuration, and `limit_s` for all of it (None: what these times add
    up to); `grace_s` is for what has no daemon any more. `config` says where things lie.
    """
    pid = running_pid(paths)
    if pid is not None:
        _end_daemon(paths, pid, limit_s, tell)
    left = roles.members(paths)
    if left:
        tell(f"ending {len(left)} processes of a daemon that was killed")
    _end_roles(left, grace_s)
    replicas = asyncio.run(end_replicas(runtimes_of(paths, config), grace_s, tell))
    return Stopped(pid is not None, len(left), replicas)


def _end_daemon(paths: Paths, pid: int, limit_s: float | None, tell: Callable[[str], None]) -> None:
    """Ask, and wait as long as it may take. One that hangs is killed; what it leaves is ended by whoever asked."""
    served = _served(paths)
    if limit_s is None:
        limit_s = patience_s(served)
    grace = format_seconds(served.gateway.grace_s)
    tell(f"stopping modelgrid (process {pid}): requests in flight may take {grace}, then its engines end")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if _has_ended(paths, pid, limit_s):
        return
    tell(f"process {pid} has not ended in {format_seconds(limit_s)}: it is killed, and what it started is ended")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not _has_ended(paths, pid, _KILLED_S):
        raise StopError(f"cannot end process {pid}: it is still there after being killed (it may wait for a disk)")


def _has_ended(paths: Paths, pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while running_pid(paths) == pid:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _served(paths: Paths) -> Config:
    """What the daemon serves, as it tells itself, else as its file last was."""
    asked = ControlClient(paths.api_socket, timeout_s=_ASK_TIMEOUT_S)
    with contextlib.suppress(NotRunning, ControlError, ConfigError), asked as client:
        return load_text(client.config(), path=None, environ={})
    with contextlib.suppress(OSError, ValueError, ConfigError):
        return load_text(paths.last_config.read_text("utf-8"), path=None, environ=os.environ)
    return Config()


def _end_roles(left: list[roles.Member], grace_s: float) -> None:
    """Workers first, with time for their streams. The others are killed: what they would do is done here."""
    workers = [member for member in left if member.role is Role.GATEWAY]
    still = roles.end(roles.end(workers, signal.SIGTERM, grace_s), signal.SIGKILL, 5.0)
    others = [member for member in left if member.role is not Role.GATEWAY]
    survivors = still + roles.end(others, signal.SIGKILL, 5.0)
    if survivors:
        pids = ", ".join(str(member.process.pid) for member in survivors)
        raise StopError(f"cannot end process {pids} (try: kill -9, as the user who started it)")

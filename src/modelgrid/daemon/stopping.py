"""Ending everything: a daemon that runs, or what one that was killed has left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelgrid.config import Config
from modelgrid.config.paths import Paths
from modelgrid.daemon import roles
from modelgrid.daemon.controller_process import runtimes_of
from modelgrid.daemon.leftovers import StopError, end_replicas
from modelgrid.daemon.roles import Role
from modelgrid.daemon.supervisor import running_pid

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Stopped:
    """What was ended."""

    daemon: bool  # a supervisor that ran
    processes: int  # controllers and workers that one had left
    replicas: int  # engines that were left


def stop_everything(paths: Paths, config: Config, *, grace_s: float, tell: Callable[[str], None]) -> Stopped:
    """End the daemon, and whatever is left of one. Returns when nothing is left. Raises StopError."""
    pid = running_pid(paths)
    if pid is not None:
        tell(f"stopping modelgrid (process {pid})")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while running_pid(paths) == pid:
            time.sleep(_POLL_S)
    left = roles.members(paths)
    if left:
        tell(f"ending {len(left)} processes of a daemon that was killed")
    _end_roles(left, grace_s)
    replicas = asyncio.run(end_replicas(runtimes_of(paths, config), grace_s, tell))
    return Stopped(pid is not None, len(left), replicas)


def _end_roles(left: list[roles.Member], grace_s: float) -> None:
    """Workers first, with time for their streams. The others are killed: what they would do is done here."""
    workers = [member for member in left if member.role is Role.GATEWAY]
    still = roles.end(roles.end(workers, signal.SIGTERM, grace_s), signal.SIGKILL, 5.0)
    others = [member for member in left if member.role is not Role.GATEWAY]
    survivors = still + roles.end(others, signal.SIGKILL, 5.0)
    if survivors:
        pids = ", ".join(str(member.process.pid) for member in survivors)
        raise StopError(f"cannot end process {pids} (try: kill -9, as the user who started it)")

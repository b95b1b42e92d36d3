"""The processes of one modelgrid: a supervisor, a controller, gateway workers. Each can be found and told apart."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import psutil

from modelgrid.config.paths import Paths
from modelgrid.runtimes.census import INSTANCE, REPLICA
from modelgrid.runtimes.environments import MAKING, ROLE


class Role(StrEnum):
    """What a process of ours is."""

    CONTROLLER = "controller"
    GATEWAY = "gateway"
    MAKING = MAKING  # an environment's maker: whoever waits for it has gone when it is met here


@dataclass(frozen=True, slots=True)
class Member:
    """A process that carries our marks."""

    role: Role
    process: psutil.Process


def marks(paths: Paths, role: Role) -> dict[str, str]:
    """The environment variables that a process of ours carries, and `members` looks for."""
    return {INSTANCE: str(paths.state), ROLE: role.value}


def members(paths: Paths) -> list[Member]:
    """The processes of this installation that live and are no replicas, whoever their parent is."""
    return list(_members(str(paths.state)))


def _members(instance: str) -> Iterator[Member]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ValueError, OSError):
            environ: Mapping[str, str] = process.environ()
            is_ours = environ.get(INSTANCE) == instance and REPLICA not in environ and ROLE in environ
            if is_ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                yield Member(Role(environ[ROLE]), process)


def end(found: list[Member], number: signal.Signals, wait_s: float) -> list[Member]:
    """Send a signal to `found`, wait for them, and return who is still there."""
    for member in found:
        with contextlib.suppress(psutil.Error):
            member.process.send_signal(number)
    deadline = time.monotonic() + wait_s
    left = found
    while (left := [member for member in left if _lives(member)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _lives(member: Member) -> bool:
    try:
        return member.process.is_running() and member.process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

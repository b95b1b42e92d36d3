"""The processes of one modelgrid can be found, told apart, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelgrid.config.paths import Paths, find_paths
from modelgrid.daemon import roles
from modelgrid.daemon.roles import Role
from modelgrid.runtimes.census import REPLICA
from modelgrid.runtimes.environments import ROLE

WAITS = "print(flush=True); import sys; sys.stdin.read()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"

Spawn = Callable[..., "subprocess.Popen[bytes]"]


def paths_of(folder: Path) -> Paths:
    return find_paths({"MODELGRID_HOME": str(folder)})


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a process with marks, and returns when it is up."""
    spawned: list[subprocess.Popen[bytes]] = []

    def start(marks: dict[str, str], program: str = WAITS) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **marks},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        spawned.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in spawned:
        process.kill()
        process.communicate()


def test_members_are_those_of_this_installation_only(spawn: Spawn, tmp_path: Path) -> None:
    ours, theirs = paths_of(tmp_path / "ours"), paths_of(tmp_path / "theirs")
    controller = spawn(roles.marks(ours, Role.CONTROLLER))
    worker = spawn(roles.marks(ours, Role.GATEWAY))
    spawn(roles.marks(theirs, Role.GATEWAY))
    found = {(member.role, member.process.pid) for member in roles.members(ours)}
    assert found == {(Role.CONTROLLER, controller.pid), (Role.GATEWAY, worker.pid)}


def test_an_engine_that_inherited_the_marks_is_no_member(spawn: Spawn, tmp_path: Path) -> None:
    ours = paths_of(tmp_path)
    spawn({**roles.marks(ours, Role.CONTROLLER), REPLICA: "a-1"})
    assert roles.members(ours) == []


def test_a_role_of_another_version_is_no_member(spawn: Spawn, tmp_path: Path) -> None:
    ours = paths_of(tmp_path)
    spawn({**roles.marks(ours, Role.CONTROLLER), ROLE: "dashboard"})
    assert roles.members(ours) == []


def test_who_is_asked_ends_and_who_does_not_is_told(spawn: Spawn, tmp_path: Path) -> None:
    ours = paths_of(tmp_path)
    good = spawn(roles.marks(ours, Role.GATEWAY))
    deaf = spawn(roles.marks(ours, Role.CONTROLLER), DEAF)
    found = roles.members(ours)
    assert len(found) == 2
    [left] = roles.end(found, signal.SIGTERM, 1.0)
    assert (left.process.pid, left.role) == (deaf.pid, Role.CONTROLLER)
    assert good.wait(5) == -signal.SIGTERM
    assert roles.end([left], signal.SIGKILL, 5.0) == []
    assert roles.end(found, signal.SIGTERM, 0.0) == [], "what is gone already is harmless"


def test_who_is_dead_and_not_collected_is_no_member(spawn: Spawn, tmp_path: Path) -> None:
    ours = paths_of(tmp_path)
    spawn(roles.marks(ours, Role.GATEWAY))
    [member] = roles.members(ours)
    assert roles.end([member], signal.SIGKILL, 5.0) == []
    assert roles.members(ours) == []

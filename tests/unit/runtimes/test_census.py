"""Which processes belong to which replica."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from modelgrid.runtimes.census import Census, Identity, identify
from modelgrid.runtimes.signals import send
from modelgrid.spec import ReplicaId

ONE = ReplicaId("tiny-1")


@pytest.fixture
def marks() -> dict[str, str]:
    """The environment of a replica's process, of an installation of this test's own."""
    return {
        "MODELGRID_INSTANCE": str(uuid4()),
        "MODELGRID_REPLICA": ONE,
        "MODELGRID_MODEL": "tiny",
        "MODELGRID_REVISION": "r1",
        "MODELGRID_PORT": "1",
        "MODELGRID_URL": "http://127.0.0.1:1/v1",
    }


@pytest.fixture
def sleeper(marks: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], env=os.environ | marks)
    yield process
    process.kill()
    process.wait()


def test_a_process_that_was_seen_before_it_became_ours_is_found(marks: dict[str, str]) -> None:
    """As one is that is looked at between fork and exec."""
    program = (
        "import os, sys\nprint('up', flush=True)\nsys.stdin.readline()\n"
        f"os.execve('/bin/sh', ['sh', '-c', 'echo; exec sleep 600'], {marks})"
    )
    census = Census(marks["MODELGRID_INSTANCE"], young_s=600)
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert census.take({}).members == {}
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        [member] = census.take({}).members[ONE]
        assert member.identity.pid == process.pid
    finally:
        process.kill()
        process.communicate()


def test_whoever_looks_is_no_replica_wherever_it_runs(marks: dict[str, str]) -> None:
    """A modelgrid command that an engine runs has the engine's marks; it must not stop itself."""
    program = (
        "import os\nfrom modelgrid.runtimes.census import Census\n"
        "print(dict(Census(os.environ['MODELGRID_INSTANCE']).take({}).members))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | marks, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{}\n"


def test_incomplete_marks_are_no_marks(marks: dict[str, str]) -> None:
    del marks["MODELGRID_URL"]
    with subprocess.Popen(["sleep", "600"], env=os.environ | marks) as process:
        assert Census(marks["MODELGRID_INSTANCE"]).take({}).members == {}
        process.kill()


def test_the_end_of_a_child_that_nobody_waited_for_is_told(
    marks: dict[str, str], sleeper: subprocess.Popen[bytes]
) -> None:
    leader = identify(sleeper.pid)
    assert leader is not None
    census = Census(marks["MODELGRID_INSTANCE"])
    assert census.take({ONE: leader}).exits == {}
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    survey = census.take({ONE: leader})
    assert (survey.members, survey.exits) == ({}, {ONE: signal.SIGKILL})


def test_a_signal_goes_to_its_process_and_not_to_a_stranger_with_its_pid(sleeper: subprocess.Popen[bytes]) -> None:
    process = identify(sleeper.pid)
    assert process is not None
    send(Identity(process.pid, process.started - 1), signal.SIGKILL)
    send(Identity(2**22 + 1, 1), signal.SIGKILL)
    assert Path(f"/proc/{sleeper.pid}").exists()
    send(process, signal.SIGTERM)
    assert sleeper.wait(timeout=20) == -signal.SIGTERM

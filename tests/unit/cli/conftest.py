"""The command line as its users have it: a process of its own, with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelgrid.api.fake import FakeControl, fake_daemon
from modelgrid.config.paths import Paths, find_paths
from modelgrid.spec import ModelStatus, ReplicaStatus, Status
from modelgrid.store import SqliteStore, open_store


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "MODELGRID_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "TERM": "xterm-256color",
        "TZ": "UTC",
    }


@pytest.fixture
def run(tmp_path: Path, environ: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modelgrid", *words],
            cwd=tmp_path,
            env={**environ, **more},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def paths(environ: dict[str, str]) -> Paths:
    found = find_paths(environ)
    found.make()
    return found


@pytest.fixture
def store(paths: Paths) -> Iterator[SqliteStore]:
    opened = open_store(paths.store)
    yield opened
    opened.close()


@pytest.fixture
def model() -> ModelStatus:
    return ModelStatus(
        name="mine",
        engine="custom",
        source=None,
        aliases=("gpt-4o-mini",),
        state="ready",
        why="",
        memory_bytes=2**30,
        waiting=0,
        in_flight=2,
        last_used=996.0,
        min=0,
        max=1,
        wish=None,
        retry_at=None,
    )


@pytest.fixture
def replica() -> ReplicaStatus:
    return ReplicaStatus(
        id="mine-7",
        model="mine",
        state="ready",
        since=800.0,
        why="answered its first request",
        memory_bytes=2**30,
        resident_bytes=2**29,
        in_flight=2,
        url="http://127.0.0.1:4000/v1",
        pid=77,
        step=None,
        phases={"spawn": 0.03, "load": 7.25},
    )


@pytest.fixture
def status(model: ModelStatus, replica: ReplicaStatus) -> Status:
    return Status(
        version="0.1.0",
        now=1000.0,
        started=400.0,
        config="/etc/modelgrid.yaml",
        config_error=None,
        memory_bytes=4 * 2**30,
        memory_source="measured",
        memory_planned_bytes=2**30,
        table=3,
        workers=1,
        address="http://127.0.0.1:9000",
        models=(model,),
        replicas=(replica,),
    )


@pytest.fixture
def control(paths: Paths, store: SqliteStore, status: Status) -> Iterator[FakeControl]:
    """The daemon runs as long as the test."""
    control = FakeControl(status)
    with fake_daemon(control, store, paths.api_socket):
        yield control

"""A bench for each runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.runtimes.bench import Bench, FakeBench, LocalBench, ProcessBench, RemoteBench


@pytest.fixture(params=["process", "fake", "remote"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every runtime."""
    made = _make(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["process", "fake"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalBench]:
    """The runtimes whose replicas can die."""
    made = ProcessBench(tmp_path) if request.param == "process" else FakeBench()
    yield made
    made.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessBench]:
    """The process runtime alone."""
    made = ProcessBench(tmp_path)
    yield made
    made.close()


def _make(name: str, folder: Path) -> Bench:
    match name:
        case "process":
            return ProcessBench(folder)
        case "remote":
            return RemoteBench(folder / "remote")
        case _:
            return FakeBench()

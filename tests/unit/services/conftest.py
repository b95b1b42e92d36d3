"""Services and the test engine as real processes, and raw HTTP to talk to them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

DEADLINE_S = 30.0


@dataclass
class Program:
    """A started program that listens on a port of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=DEADLINE_S, **options)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return httpx.post(self.url + path, content=content, timeout=DEADLINE_S, **options)

    def wait_for(self, path: str = "/health", status: int = 200) -> None:
        """Until it answers so; a program that has died fails the test with what it said."""

        def answers() -> bool:
            assert self.process.poll() is None, self.lines()
            try:
                return self.get(path).status_code == status
            except httpx.TransportError:
                return False

        until(answers)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


Start = Callable[..., Program]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs: ``start("-m", "modelgrid.services.faulty", "--echo", env={…})``. Ends them all."""
    programs: list[Program] = []

    def started(*arguments: str, env: Mapping[str, str] | None = None, port: int | None = None) -> Program:
        port = port or free_port()
        log = tmp_path / f"{len(programs)}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELGRID_")}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments, "--port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**kept, **(env or {})},
            )
        programs.append(Program(process, port, log))
        return programs[-1]

    yield started
    for program in programs:
        program.process.kill()
        program.process.wait()


Faulty = Callable[..., Program]


@pytest.fixture
def faulty(start: Start) -> Faulty:
    """Starts a test engine, and waits until it is healthy."""

    def started(*arguments: str, waits: bool = True, **options: object) -> Program:
        program = start("-m", "modelgrid.services.faulty", *arguments, **options)
        if waits:
            program.wait_for()
        return program

    return started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

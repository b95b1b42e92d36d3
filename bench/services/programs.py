"""The programs that are measured, started as the daemon would: a service in its environment, and the bare library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench.services.subjects import Subject, sentence

from modelgrid.engines import ENGINES
from modelgrid.runtimes import Environments, torch_wheel
from modelgrid.runtimes.placeholders import fill
from modelgrid.spec import MAIN, Device, Launch, Machine, Place, ReplicaId, Share

_ROOT = Path(__file__).parents[2]
ENVIRONMENTS = _ROOT / ".cache" / "environments"
BARE = Path(__file__).with_name("bare.py")
TEXTS = 256
KEY = "bench"
_START_S = 900.0
_MEMORY_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Bare:
    """The library alone."""

    process: subprocess.Popen[str]

    def rate(self, batch: int, seconds: float) -> float:
        """Units a second."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{batch} {seconds}\n")
        self.process.stdin.flush()
        return float(_line(self.process))


def make_environment(subject: Subject) -> tuple[Launch, str]:
    """Its launch, and the interpreter of its environment; which is made first where it isn't there."""
    wheel = torch_wheel()
    main = Device(MAIN, _MEMORY_BYTES, _MEMORY_BYTES)
    place = Place(Machine((main,), torch_wheel=wheel), (Share(MAIN, _MEMORY_BYTES),))
    launch = ENGINES[subject.model.engine].launch(subject.model, ReplicaId("bench-1"), place, None, KEY)
    assert launch.environment is not None
    python = asyncio.run(Environments(ENVIRONMENTS).ready(launch.environment, lambda *_: None))
    return launch, str(python)


@contextlib.contextmanager
def service(launch: Launch, python: str) -> Iterator[int]:
    """The service, ready; its port."""
    port = _free_port()
    values = {"python": python, "bin": str(Path(python).parent), "port": str(port), "host": "127.0.0.1"}
    argv = [fill(word, values) for word in launch.argv]
    environ = {name: fill(text, values) for name, text in launch.env.items()}
    process = subprocess.Popen(argv, env=_environ(environ), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(process, port, launch.health)
        yield port
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def bare(subject: Subject, python: str) -> Iterator[Bare]:
    """The library alone, loaded."""
    argv = [python, "-P", str(BARE), subject.model.name, subject.model.source or ""]
    argv += [sentence(number) for number in range(TEXTS)]
    environ = _environ({"HF_HUB_OFFLINE": "1"})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(argv, env=environ, stderr=subprocess.DEVNULL, text=True, **pipes)  # type: ignore[call-overload]  # the pipes are numbers
    try:
        assert _line(process) == "ready"
        yield Bare(process)
    finally:
        process.kill()
        process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        sys.exit(f"cannot measure the bare library: it has ended with {process.wait()}")
    return line


def _wait_for(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"cannot measure the service: it has not become ready, and ended with {process.poll()}")
        time.sleep(0.1)


def _environ(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELGRID_")}
    return {**kept, **more}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

"""What modelgrid adds to the start of a cold model: ``python bench/cold_start.py`` prints a table.

The engine is the test engine, a real process. Its own start is timed by starting the very same command directly, until
its health check answers; its own stop from SIGTERM until the process is gone. What is left of the caller's time is
modelgrid's: noticing the request, planning, starting, finding out that the engine is ready, the first request that
proves it, routing, and the answer itself. In a swap, another model has to go first.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config.paths import Paths, find_paths
from modelgrid.spec import Status

HOST = "127.0.0.1"
ENGINE = ["-m", "modelgrid.services.faulty", "--port", "{port}"]
PHASES = ("queued", "weights", "environment", "spawn", "load", "first_request")
LIMIT_S = 60.0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--start-delay", default="0", help="seconds that the engine takes to open its port")
    options = parser.parse_args()
    engine = [*ENGINE, "--start-delay", options.start_delay]
    direct, cold, swap = [], [], []
    with tempfile.TemporaryDirectory() as home, _served(Path(home), engine) as modelgrid:
        for _ in range(options.rounds):  # in turn, so that whatever else the machine does slows all alike
            direct.append(_direct(engine))
            cold.append(modelgrid.cold())
            swap.append(modelgrid.swap())
        phases = modelgrid.phases()
    start_s = [start_s for start_s, _ in direct]
    stop_s = [stop_s for _, stop_s in direct]
    print(f"{options.rounds} rounds on {os.cpu_count()} cores, milliseconds      median     min     max")  # noqa: T201
    _row("engine's own start, until its health answers", start_s)
    _row("engine's own stop", stop_s)
    _row("cold: caller's whole time", cold)
    _row("swap: caller's whole time", swap)
    _line("modelgrid adds to a cold start", _median(cold) - _median(start_s))
    _line("modelgrid adds to a swap (a stop and a start)", _median(swap) - _median(start_s) - _median(stop_s))
    for phase, times_s in phases.items():
        _row(f"phase {phase}", times_s)


@dataclass
class Modelgrid:
    """One that serves two models, of which only one fits."""

    paths: Paths
    caller: httpx.Client
    turn: int = 0

    def cold(self) -> float:
        """A request to a model while none is loaded."""
        with ControlClient(self.paths.api_socket) as control:
            for name in ("a", "b"):
                control.unload(name)
            _until(lambda: not control.status().replicas)
        return self._ask("a")

    def swap(self) -> float:
        """A request to the model that is not loaded, while the other one is."""
        other, name = ("a", "b") if self.turn % 2 == 0 else ("b", "a")
        self.turn += 1
        self._ask(other)
        with ControlClient(self.paths.api_socket) as control:
            _until(lambda: _is_idle(control.status()))
        return self._ask(name)

    def phases(self) -> dict[str, list[float]]:
        """Of every start, as the log tells."""
        lines = [line for line in (self.paths.logs / "modelgrid.log").read_text().splitlines() if "spawn_ms" in line]
        found = {}
        for phase in PHASES:
            texts = [re.search(rf"\b{phase}_ms\W+(\d+)", line) for line in lines]
            found[phase] = [int(text[1]) / 1000 for text in texts if text]
        return {phase: times_s for phase, times_s in found.items() if times_s}

    def _ask(self, model: str) -> float:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        began = time.perf_counter()
        self.caller.post("/v1/chat/completions", json=body).raise_for_status()
        return time.perf_counter() - began


@contextmanager
def _served(home: Path, engine: list[str]) -> Iterator[Modelgrid]:
    environ = {**os.environ, "MODELGRID_HOME": str(home)}
    port = _free_port()
    model = {"engine": "custom", "command": [sys.executable, *engine], "needs": {"memory": "100MiB"}}
    config = {
        "gateway": {"port": port},
        "machine": {"memory": "150MiB"},
        "models": {"a": model, "b": model},
    }
    (home / "modelgrid.yaml").write_text(yaml.safe_dump(config))
    paths = find_paths(environ)
    with (home / "out").open("wb") as out:
        daemon = subprocess.Popen([sys.executable, "-m", "modelgrid", "serve"], env=environ, stdout=out, stderr=out)
    try:
        _until(lambda: daemon.poll() is None and _serves(paths))
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=LIMIT_S, trust_env=False) as caller:
            caller.get("/health")
            yield Modelgrid(paths, caller)
    finally:
        daemon.terminate()
        daemon.wait(LIMIT_S)


def _direct(engine: list[str]) -> tuple[float, float]:
    """How long the engine takes by itself to start, and to stop."""
    port = _free_port()
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *(word.replace("{port}", str(port)) for word in engine)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False) as client:
            _until(lambda: _accepts(port))
            client.get("/health").raise_for_status()
        started = time.perf_counter()
        process.terminate()
        process.wait(LIMIT_S)
        return started - began, time.perf_counter() - started
    finally:
        process.kill()


def _serves(paths: Paths) -> bool:
    try:
        with ControlClient(paths.api_socket) as control:
            return control.status().workers > 0
    except (NotRunning, ControlError):
        return False


def _is_idle(status: Status) -> bool:
    return all(replica.state == "ready" and replica.in_flight == 0 for replica in status.replicas)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"cannot measure: not what was waited for within {LIMIT_S:.0f} s")
        time.sleep(0.002)


def _median(times_s: list[float]) -> float:
    return statistics.median(times_s)


def _row(name: str, times_s: list[float]) -> None:
    low, high = min(times_s) * 1000, max(times_s) * 1000
    print(f"{name:50} {_median(times_s) * 1000:7.0f} {low:7.0f} {high:7.0f}")  # noqa: T201


def _line(name: str, time_s: float) -> None:
    print(f"{name:50} {time_s * 1000:7.0f}")  # noqa: T201


if __name__ == "__main__":
    main()

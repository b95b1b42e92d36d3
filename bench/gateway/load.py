"""Loads: each is a program on the callers' cores, and answers with what it saw."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gateway import bodies
from bench.gateway.idle import READY as READY_IDLE
from bench.gateway.processes import HOST, Failed, ask, running
from bench.gateway.streams import READY as READY_STREAMS

_ROOT = Path(__file__).parents[2]
_SLACK_S = 60.0
_HELD_S = 90.0


@dataclass(frozen=True, slots=True)
class Callers:
    """Where callers run, and what they send."""

    folder: Path
    cores: frozenset[int]

    def closed_loop(
        self, port: int, size: int, seconds: float, *, connections: int, differ: bool = False, threads: int = 1
    ) -> Answered:
        """wrk: every connection sends again as soon as it was answered."""
        body = self.folder / f"body-{size}.json"
        if not body.exists():
            body.write_bytes(bodies.chat(size))
        command = ["wrk", f"-t{threads}", f"-c{connections * threads}", f"-d{math.ceil(seconds)}s", "--timeout", "30s"]
        command += ["-s", str(Path(__file__).with_name("load.lua")), f"http://{HOST}:{port}{bodies.PATH}"]
        command += ["--", str(body), bodies.HEADERS["Authorization"], "differ" if differ else "same"]
        said = self._run("wrk", command, seconds)
        return Answered(int(said["requests"]), float(said["seconds"]), int(said["failed"]), said)

    def streams(self, port: int, count: int, apart_ms: float, limit_s: float) -> dict[str, Any]:
        """`count` streams at once, to their ends."""
        words = [str(port), str(count), "--apart-ms", str(apart_ms), "--limit-s", str(limit_s)]
        said = self._run("streams", [sys.executable, "-m", "bench.gateway.streams", *words], limit_s)
        if said["failed"]:
            raise Failed(f"{said['failed']} of {said['streams']} streams did not end well; {said['why'] or 'cut off'}")
        return said

    def open_loop(self, port: int, rate: float, seconds: float) -> dict[str, Any]:
        """A fixed rate, whatever the answers do."""
        words = [str(port), str(rate), str(seconds)]
        said = self._run("open-loop", [sys.executable, "-m", "bench.gateway.open_loop", *words], seconds)
        if said["failed"]:
            raise Failed(f"{said['failed']} of {said['requests']} requests at {rate:.0f}/s failed")
        return said

    @contextlib.contextmanager
    def idle(self, port: int, count: int) -> Iterator[None]:
        """Connections that have had an answer each and ask for nothing more."""
        with self._held([sys.executable, "-m", "bench.gateway.idle", str(port), str(count)], READY_IDLE):
            yield

    @contextlib.contextmanager
    def held_streams(self, port: int, count: int, apart_ms: float) -> Iterator[None]:
        """Streams that all go on."""
        words = [str(port), str(count), "--apart-ms", str(apart_ms), "--hold", "--limit-s", "600"]
        with self._held([sys.executable, "-m", "bench.gateway.streams", *words], READY_STREAMS):
            yield

    @contextlib.contextmanager
    def _held(self, command: Sequence[str], ready: str) -> Iterator[None]:
        log = self.folder / "held.log"
        log.unlink(missing_ok=True)
        with running("held", command, self.folder, self.cores, environ={"PYTHONPATH": str(_ROOT)}) as program:
            deadline = time.monotonic() + _HELD_S
            while ready not in log.read_text(errors="replace"):
                program.check()
                if time.monotonic() > deadline:
                    raise Failed(f"not all connections were there after {_HELD_S:.0f} s")
                time.sleep(0.05)
            yield

    def _run(self, name: str, command: Sequence[str], seconds: float) -> dict[str, Any]:
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        with running(name, command, self.folder, self.cores, environ={"PYTHONPATH": str(_ROOT)}) as program:
            code = program.wait(seconds + _SLACK_S)
        lines = log.read_text(errors="replace").splitlines()
        if code or not lines or not lines[-1].startswith("{"):
            raise Failed(f"cannot measure with {name}: it ended with code {code}\n    " + "\n    ".join(lines[-6:]))
        said: dict[str, Any] = json.loads(lines[-1])
        return said


@dataclass(frozen=True, slots=True)
class Answered:
    """What a closed loop got."""

    requests: int
    seconds: float
    failed: int
    said: Mapping[str, Any]

    def check(self) -> Answered:
        """Raises Failed unless all went well."""
        if self.failed or not self.requests:
            raise Failed(f"{self.failed} of {self.requests} requests failed")
        return self


def set_pace(ports: Sequence[int], chunks: int, interval_ms: int) -> None:
    """How fast and how long the upstream's streams to come are."""
    for port in ports:
        ask(port, f"/pace?chunks={chunks}&interval_ms={interval_ms}", {})

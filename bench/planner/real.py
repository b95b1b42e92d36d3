"""The same in small with real engines: ``python -m bench.planner --real``.

Two models of a test engine, a real process that takes its time to start, holds the memory that it says, and takes a
fixed time for an answer; room for one. modelgrid is its real daemon; the others are their ways in `RealWorld`. The same
trace is simulated as well, with the times that one engine took.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import yaml
from bench.planner.real_world import HOST, RealWorld, free_port
from bench.planner.run import WAYS

from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config.paths import find_paths
from modelgrid.simulation.figures import Figures, figures
from modelgrid.simulation.request import Call, Request
from modelgrid.simulation.speed import Speed
from modelgrid.simulation.synthetic import Shape, turns
from modelgrid.simulation.world import SimulatedModel, World
from modelgrid.spec import ModelName, ModelSpec
from modelgrid.spec.machine import LOCAL, MAIN, Device, Machine, Need

START_DELAY_S = 3.0
ANSWER_S = 0.5
MIB = 2**20
HELD = 200 * MIB
NEEDED = 300 * MIB
ROOM = 450 * MIB
SHAPE = Shape(rate=1.5, duration_s=30.0, deadline_s=15.0, patience_s=20.0)
SEED = 1
ENGINE = (
    *("-m", "modelgrid.services.faulty", "--port", "{port}", "--model", "{model}"),
    *("--start-delay", str(START_DELAY_S), "--delay", str(ANSWER_S), "--eat-memory", f"{HELD // MIB}MiB"),
)
NAMES = (ModelName("a"), ModelName("b"))
_LIMIT_S = 30.0
_CALL_LIMIT_S = 120.0  # callers leave earlier by themselves


@dataclass(frozen=True, slots=True)
class Real:
    """One way, measured and simulated."""

    way: str
    measured: Figures
    simulated: Figures
    latency_s: tuple[float, float]  # of answers, and of who left as long as they stayed: p50 and p95


def measure(ways: Sequence[str], tell: Callable[[str], None]) -> list[Real]:
    """Each way in turn. Takes about forty seconds a way."""
    trace = [replace(request, input=1, output=2) for request in turns(NAMES, SHAPE, SEED)]
    start_s, stop_s = _engine_times()
    tell(f"an engine starts in {start_s:.1f} s, stops in {stop_s:.2f} s, answers in {ANSWER_S:.1f} s")
    models = [_model(name, start_s, stop_s) for name in NAMES]
    found = []
    for way in ways:
        tell(f"{way}: {len(trace)} requests over {SHAPE.duration_s:.0f} s")
        if way == "modelgrid":
            calls = _through_modelgrid(trace)
        else:
            calls = asyncio.run(RealWorld([_machine()], models, WAYS[way](), ENGINE).serve(trace))
        if refused := [call.refused for call in calls if call.refused]:
            tell(f"{way}: {len(refused)} were turned away: {refused[0][:300]}")
        simulated = World([_machine()], models, WAYS[way]()).run(trace)
        found.append(Real(way, _figures(calls), _figures(simulated.calls), _latency_s(calls)))
    return found


def drawn(found: Sequence[Real]) -> str:
    """The table."""
    lines = [f"{'':12}{'goodput/s':>10}{'done/s':>8}{'time p50':>10}{'time p95':>10}   simulated: goodput/s  done/s"]
    for each in found:
        middle, most = each.latency_s
        lines.append(
            f"{each.way:12}{each.measured.goodput:10.3f}{each.measured.completed_rate:8.3f}{middle:10.1f}{most:10.1f}"
            f"{each.simulated.goodput:24.3f}{each.simulated.completed_rate:8.3f}"
        )
    order = [each.way for each in sorted(found, key=lambda each: -each.measured.goodput)]
    lines.append(f"order by goodput: {', '.join(order)}")
    return "\n".join(lines) + "\n"


def _model(name: ModelName, start_s: float, stop_s: float) -> SimulatedModel:
    """An answer of the test engine takes the same time whoever else is there: two tokens, a step that doesn't grow."""
    speed = Speed(start_s, prefill_tokens_s=1e9, step_s=ANSWER_S, step_more_s=0.0, most_running=1024, stop_s=stop_s)
    return SimulatedModel(ModelSpec(name, "custom"), Need(NEEDED), {LOCAL: speed})


def _machine() -> Machine:
    return Machine((Device(MAIN, ROOM, ROOM),))


def _figures(calls: Sequence[Call]) -> Figures:
    return figures(calls, SHAPE.duration_s)


def _latency_s(calls: Sequence[Call]) -> tuple[float, float]:
    times = [(call.done if call.done is not None else call.left or 0.0) - call.request.at for call in calls]
    cuts = statistics.quantiles(times, n=20, method="inclusive")
    return cuts[9], cuts[18]


def _engine_times() -> tuple[float, float]:
    """What one engine takes by itself to start, and to stop."""
    port = free_port()
    words = [word.format(port=port, model="a") for word in ENGINE]
    began = time.perf_counter()
    engine = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False) as client:
            _until(lambda: _is_healthy(client), "an engine that answers")
        started = time.perf_counter()
        engine.terminate()
        engine.wait(_LIMIT_S)
        return started - began, time.perf_counter() - started
    finally:
        engine.kill()


def _is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


# modelgrid


def _through_modelgrid(trace: Sequence[Request]) -> list[Call]:
    with tempfile.TemporaryDirectory() as home, _daemon(Path(home)) as url:
        return asyncio.run(_ask_all(url, trace))


@contextmanager
def _daemon(home: Path) -> Iterator[str]:
    """A real daemon with a home of its own; ends with all of its engines."""
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MODELGRID_")}
    environ["MODELGRID_HOME"] = str(home)
    config = {
        "gateway": {"port": port, "grace": "1s"},
        "machine": {"memory": f"{ROOM // MIB}MiB"},
        "models": {name: _configured(name) for name in NAMES},
    }
    (home / "modelgrid.yaml").write_text(yaml.safe_dump(config))
    paths = find_paths(environ)
    with (home / "out").open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "modelgrid", "serve"], env=environ, cwd=home, stdout=out, stderr=out
        )
    try:
        _until(lambda: _serves(paths.api_socket), "a daemon that serves", lambda: daemon.poll() is not None)
        yield f"http://{HOST}:{port}"
    finally:
        daemon.terminate()
        daemon.wait(_LIMIT_S)


def _configured(name: ModelName) -> dict[str, object]:
    command = [sys.executable, *(word.replace("{model}", name) for word in ENGINE)]
    return {"engine": "custom", "command": command, "needs": {"memory": f"{NEEDED // MIB}MiB"}}


def _serves(socket: Path) -> bool:
    try:
        with ControlClient(socket) as control:
            return control.status().workers > 0
    except (NotRunning, ControlError):
        return False


async def _ask_all(url: str, trace: Sequence[Request]) -> list[Call]:
    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=_CALL_LIMIT_S) as client:
        began = loop.time()

        async def ask(number: int, request: Request) -> Call:
            await asyncio.sleep(max(0.0, began + request.at - loop.time()))
            call = Call(request, number)
            body = {"model": request.model, "messages": [{"role": "user", "content": "hello"}]}
            try:
                async with asyncio.timeout(request.patience_s):
                    answer = await client.post("/v1/chat/completions", json=body)
            except TimeoutError:
                call.left = loop.time() - began
                return call
            if answer.status_code == 200:
                call.sent = call.first = call.done = loop.time() - began
            else:
                call.left, call.refused = loop.time() - began, answer.text
            return call

        return list(await asyncio.gather(*(ask(number, request) for number, request in enumerate(trace))))


def _until(holds: Callable[[], bool], what: str, is_over: Callable[[], bool] = lambda: False) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not holds():
        if time.monotonic() > deadline or is_over():
            raise SystemExit(f"cannot measure: there was not {what} within {_LIMIT_S:.0f} s")
        time.sleep(0.02)

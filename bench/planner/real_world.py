"""The ways of others with real engines: the same code decides, but a start is a process and a request is HTTP.

This is the peer program: a swapping proxy in one process. Callers reach it by a call rather than over a socket, so it
has less to do than a proxy would.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Sequence

import httpx

from modelgrid.simulation.engine import Engine, Phase
from modelgrid.simulation.request import Call, Request
from modelgrid.simulation.world import SimulatedModel, Way, World
from modelgrid.spec import ModelName, ReplicaId
from modelgrid.spec.machine import Machine, Share

HOST = "127.0.0.1"
_POLL_S = 0.02
_START_LIMIT_S = 60.0
_CALL_LIMIT_S = 120.0  # callers leave earlier by themselves


class RealWorld(World):
    """A world whose engines are processes, and whose time is the clock's. `World.run` is replaced by `serve`."""

    def __init__(
        self, machines: Sequence[Machine], models: Sequence[SimulatedModel], way: Way, command: Sequence[str]
    ) -> None:
        super().__init__(machines, models, way)
        self._command = command  # of an engine, with {port} and {model}
        self._ports: dict[ReplicaId, int] = {}
        self._processes: dict[ReplicaId, subprocess.Popen[bytes]] = {}
        self._began = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: dict[Call, asyncio.Event] = {}

    async def serve(self, requests: Sequence[Request]) -> list[Call]:
        """Serve a trace, and end every engine."""
        self._began = asyncio.get_running_loop().time()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=_CALL_LIMIT_S) as self._client:
            try:
                async with asyncio.TaskGroup() as callers:
                    calls = [callers.create_task(self._call(request)) for request in requests]
                return [call.result() for call in calls]
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                for process in self._processes.values():
                    process.kill()
                    process.wait()

    # what ways do

    def start(self, id: ReplicaId, model: ModelName, machine: str, shares: tuple[Share, ...]) -> Engine:
        """Start a process."""
        self._take(machine, shares)
        speed = self.models[model].speed[machine]
        engine = Engine(id, model, machine, shares, speed, self.now, since=self.now, last_used=self.now)
        self.engines[id] = engine
        self.history.starts += 1
        self._ports[id] = free_port()
        words = [word.format(port=self._ports[id], model=model) for word in self._command]
        self._processes[id] = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._spawn(self._until_ready(engine))
        return engine

    def stop(self, id: ReplicaId) -> None:
        """Ask a process to end. Twice is harmless."""
        engine = self.engines[id]
        if engine.phase is not Phase.ENDING:
            engine.phase = Phase.ENDING
            self._processes[id].terminate()
            self._spawn(self._until_gone(engine))

    def send(self, call: Call, engine: Engine) -> None:
        """Relay a request."""
        assert engine.phase is Phase.READY
        call.sent, call.replica = self.now, engine.id
        engine.queue.append(call)
        engine.last_used = self.now
        self._spawn(self._relay(call, engine))

    def refuse(self, call: Call, why: str) -> None:
        """Turn a request away."""
        call.left, call.refused = self.now, why
        self._over[call].set()

    # events

    async def _call(self, request: Request) -> Call:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._began + request.at - loop.time()))
        self._tick()
        call = Call(request, len(self.history.calls))
        self.history.calls.append(call)
        self._over[call] = asyncio.Event()
        self._way.arrived(self, call)
        self._way.look(self)
        try:
            await asyncio.wait_for(self._over[call].wait(), request.patience_s)
        except TimeoutError:
            self._tick()
            call.left = self.now
            if call.sent is None:
                self._way.left(self, call)
            self._way.look(self)
        return call

    async def _relay(self, call: Call, engine: Engine) -> None:
        body = {"model": call.model, "messages": [{"role": "user", "content": "hello"}]}
        answer = await self._client.post(f"http://{HOST}:{self._ports[engine.id]}/v1/chat/completions", json=body)
        self._tick()
        engine.queue.remove(call)
        engine.last_used = self.now
        if not call.is_over:
            assert answer.status_code == 200, answer.text
            call.first = call.done = self.now
            self._over[call].set()
        self._way.finished(self, call, engine)
        self._way.look(self)

    async def _until_ready(self, engine: Engine) -> None:
        async with asyncio.timeout(_START_LIMIT_S):
            while not await self._is_healthy(engine):
                await asyncio.sleep(_POLL_S)
        self._tick()
        engine.phase = Phase.READY
        self._way.look(self)

    async def _is_healthy(self, engine: Engine) -> bool:
        try:
            answer = await self._client.get(f"http://{HOST}:{self._ports[engine.id]}/health")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async def _until_gone(self, engine: Engine) -> None:
        while self._processes[engine.id].poll() is None:
            await asyncio.sleep(_POLL_S)
        self._tick()
        del self._processes[engine.id]
        del self.engines[engine.id]
        self._give(engine.machine, engine.shares)
        self._way.look(self)

    def _tick(self) -> None:
        self.now = asyncio.get_running_loop().time() - self._began

    def _spawn(self, coroutine: object) -> None:
        assert asyncio.iscoroutine(coroutine)
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

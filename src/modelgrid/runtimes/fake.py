"""A runtime in memory, whose configuration is faults. It passes the contract tests of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from modelgrid.runtimes import gpus
from modelgrid.runtimes.runtime import Progress, Runtime, StartError
from modelgrid.spec import Exited, Launch, ModelName, ReplicaId, Running, Seen, Unknown

_FIRST_PORT = 20_000
_FIRST_PID = 1_000


class StartFault(StrEnum):
    """What becomes of a start."""

    NONE = "none"
    REFUSED = "refused"  # raises, and nothing appears
    LOST = "lost"  # returns, and nothing appears
    REPLY_LOST = "reply lost"  # raises, and the replica appears all the same
    HANGS = "hangs"  # never returns; nothing appears


@dataclass(frozen=True, slots=True)
class Faults:
    """How the fake treats a model's replicas. Times are of the fake's clock."""

    start: StartFault = StartFault.NONE
    appears_after_s: float = 0.0  # a start returns before it shows
    exits_after_s: float | None = None
    exit_why: str = "exited with code 1"
    leftover_processes: int = 0  # that outlive the replica's own end, until a stop by force
    loses_stops: int = 0  # so many stops do nothing
    ignores_gentle_stops: bool = False
    stop_takes_s: float = 0.0


@dataclass(slots=True)
class _Process:
    replica: ReplicaId
    launch: Launch
    faults: Faults
    number: int
    appears: float
    exited: Exited | None = None
    ends: float | None = None  # when a stop will have been done
    lost_stops: int = 0


@dataclass(slots=True)
class World:
    """What there is. Fakes that share one see the same, as two daemons on one machine do."""

    clock: Callable[[], float]
    faults: dict[ModelName, Faults] = field(default_factory=dict)
    blind: str | None = None  # why list answers Unknown
    starts: list[ReplicaId] = field(default_factory=list)  # every process that was ever made, in order
    processes: dict[ReplicaId, _Process] = field(default_factory=dict)
    logs: dict[ReplicaId, list[str]] = field(default_factory=dict)

    def crash(self, replica: ReplicaId, why: str = "killed by SIGKILL", processes: int = 0) -> None:
        """The replica's main process dies; `processes` others live on."""
        self.processes[replica].exited = Exited(why, processes)

    def vanish(self, replica: ReplicaId) -> None:
        """The replica is gone and nothing remembers it."""
        del self.processes[replica]


class FakeRuntime(Runtime):
    """Runs nothing. The same calls at the same times of `world.clock` give the same answers."""

    name = "fake"

    def __init__(self, world: World) -> None:
        self.world = world

    async def start(self, replica: ReplicaId, launch: Launch, progress: Progress) -> None:
        """See `Runtime.start`."""
        faults = self.world.faults.get(launch.model, Faults())
        if replica in self.world.processes:
            return
        if faults.start is StartFault.HANGS:
            await asyncio.Event().wait()
        if faults.start is StartFault.REFUSED:
            raise StartError(f"cannot start {replica}: the fake was told to refuse it")
        if faults.start is StartFault.LOST:
            return
        self._make(replica, launch, faults)
        progress("spawn", "in memory")
        if faults.start is StartFault.REPLY_LOST:
            raise StartError(f"cannot start {replica}: the fake was told to lose its answer")

    async def stop(self, replica: ReplicaId, *, force: bool) -> None:
        """See `Runtime.stop`."""
        self._pass_time()
        process = self.world.processes.get(replica)
        if process is None:
            return
        if process.lost_stops < process.faults.loses_stops:
            process.lost_stops += 1
            return
        now = self.world.clock()
        if process.exited is not None:
            if process.exited.processes == 0 or force:
                del self.world.processes[replica]
        elif (force or not process.faults.ignores_gentle_stops) and (process.ends is None or force):
            process.ends = now + (0.0 if force else process.faults.stop_takes_s)

    async def logs(self, replica: ReplicaId, lines: int) -> list[str]:
        """See `Runtime.logs`."""
        return self.world.logs.get(replica, [])[-lines:] if lines > 0 else []

    def look_again(self, replica: ReplicaId) -> None:
        """See `Runtime.look_again`: nothing is remembered."""

    async def list(self) -> Sequence[Seen] | Unknown:
        """See `Runtime.list`."""
        if self.world.blind is not None:
            return Unknown(self.world.blind)
        self._pass_time()
        now = self.world.clock()
        shown = [process for process in self.world.processes.values() if process.appears <= now]
        return [_seen(process) for process in sorted(shown, key=lambda process: process.replica)]

    def _make(self, replica: ReplicaId, launch: Launch, faults: Faults) -> None:
        appears = self.world.clock() + faults.appears_after_s
        self.world.processes[replica] = _Process(replica, launch, faults, len(self.world.starts), appears)
        self.world.starts.append(replica)
        self.world.logs[replica] = [f"{replica} started"]

    def _pass_time(self) -> None:
        now = self.world.clock()
        for process in list(self.world.processes.values()):
            after = process.faults.exits_after_s
            if process.ends is not None and process.ends <= now:
                del self.world.processes[process.replica]
            elif process.exited is None and after is not None and process.appears + after <= now:
                process.exited = Exited(process.faults.exit_why, process.faults.leftover_processes)


def _seen(process: _Process) -> Seen:
    state: Running | Exited | None = process.exited
    if state is None:
        port = process.launch.port or _FIRST_PORT + process.number
        root = f"http://127.0.0.1:{port}"
        state = Running(f"{root}/v1", root, process.launch.memory_bytes, _FIRST_PID + process.number)
    devices = gpus.devices(gpus.words(process.launch.gpus))
    return Seen(process.replica, process.launch.model, process.launch.revision, state, devices=devices)

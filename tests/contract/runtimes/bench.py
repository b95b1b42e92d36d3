"""One bench for each runtime: it starts the runtime, and asks for engines that behave in a given way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import psutil

from modelgrid.runtimes.environments import Environments
from modelgrid.runtimes.fake import FakeRuntime, Faults, World
from modelgrid.runtimes.process import ProcessRuntime
from modelgrid.runtimes.remote import RemoteRuntime
from modelgrid.runtimes.runtime import Runtime
from modelgrid.spec import Exited, Launch, ModelName, ReplicaId, Seen, Unknown

T = TypeVar("T")
DEADLINE_S = 20.0


def quiet(phase: str, detail: str) -> None:
    """Progress that nobody follows."""


class Bench(ABC):
    """A runtime under test. `runtime()` may be called again: each is as a new daemon over the same world."""

    @abstractmethod
    def runtime(self) -> Runtime: ...

    @abstractmethod
    def lives(self) -> Launch:
        """An engine that runs until it is asked to end."""

    @abstractmethod
    def count(self) -> int:
        """How many replicas were really made, counted past the runtime."""

    def close(self) -> None:  # noqa: B027  most benches leave nothing behind
        """End what is still there."""


class LocalBench(Bench):
    """A runtime whose replicas can die."""

    @abstractmethod
    def exits(self, code: int) -> Launch: ...

    @abstractmethod
    def stubborn(self) -> Launch:
        """An engine that does not end when asked."""

    @abstractmethod
    def leaves_processes(self) -> Launch:
        """An engine whose main process ends by itself while another of its processes lives on, deaf to SIGTERM."""


class ProcessBench(LocalBench):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance = f"{folder}/state/{uuid4()}"

    def runtime(self, hidden: Collection[str] = ()) -> ProcessRuntime:
        return ProcessRuntime(
            instance=self.instance,
            records=self.folder / "records",
            logs=self.folder / "logs",
            environments=Environments(self.folder / "environments"),
            hidden=lambda: hidden,
        )

    def python(self, program: str, *arguments: str) -> Launch:
        return Launch(ModelName("tiny"), "r1", "tiny", argv=("{python}", "-c", program, *arguments))

    def lives(self) -> Launch:
        return self.python("import time\nwhile True: time.sleep(60)")

    def exits(self, code: int) -> Launch:
        return self.python(f"import sys\nprint('about to end')\nsys.exit({code})")

    def stubborn(self) -> Launch:
        return self.python(
            "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\n"
            "while True: time.sleep(60)"
        )

    def leaves_processes(self) -> Launch:
        child = (
            "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.setsid()\nprint('deaf')\n"
            "while True: time.sleep(60)"
        )
        return self.python(
            "import subprocess, sys\n"
            "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
            "child.stdout.readline()\n",
            child,
        )

    def ours(self) -> list[psutil.Process]:
        """All living processes that carry the instance, found without the runtime."""
        return [process for process in psutil.process_iter() if self._carries(process)]

    def count(self) -> int:
        return len(self.ours())

    def close(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while found := self.ours():
            assert time.monotonic() < deadline
            for process in found:
                os.kill(process.pid, signal.SIGKILL)

    def _carries(self, process: psutil.Process) -> bool:
        try:
            environ = process.environ()
            return environ.get("MODELGRID_INSTANCE") == self.instance and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class FakeBench(LocalBench):
    def __init__(self) -> None:
        self.world = World(clock=lambda: 0.0)

    def runtime(self) -> FakeRuntime:
        return FakeRuntime(self.world)

    def launch(self, faults: Faults) -> Launch:
        self.world.faults[ModelName("tiny")] = faults
        return Launch(ModelName("tiny"), "r1", "tiny", argv=("true",), memory_bytes=1)

    def lives(self) -> Launch:
        return self.launch(Faults())

    def exits(self, code: int) -> Launch:
        return self.launch(Faults(exits_after_s=0.0, exit_why=f"exited with code {code}"))

    def stubborn(self) -> Launch:
        return self.launch(Faults(ignores_gentle_stops=True))

    def leaves_processes(self) -> Launch:
        return self.launch(Faults(exits_after_s=0.0, exit_why="exited with code 0", leftover_processes=1))

    def count(self) -> int:
        return len(self.world.starts)


class RemoteBench(Bench):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runtime(self) -> RemoteRuntime:
        return RemoteRuntime(records=self.folder)

    def lives(self) -> Launch:
        return Launch(ModelName("tiny"), "r1", "tiny", urls=("http://127.0.0.1:9/v1",))

    def count(self) -> int:
        return len(list(self.folder.iterdir()))


async def see(runtime: Runtime) -> dict[ReplicaId, Seen]:
    """What the runtime lists; it must be able to."""
    found = await runtime.list()
    assert not isinstance(found, Unknown), found
    assert len({seen.replica for seen in found}) == len(found)
    return {seen.replica: seen for seen in found}


async def wait_for(condition: Callable[[], Awaitable[T | None]]) -> T:
    """The first answer that is true, within a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not (answer := await condition()):
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.02)
    return answer


async def wait_for_exit(runtime: Runtime, replica: ReplicaId) -> Exited:
    """Until the replica's main process has gone."""

    async def ended() -> Exited | None:
        state = (await see(runtime))[replica].state
        return state if isinstance(state, Exited) else None

    return await wait_for(ended)


async def wait_for_log(runtime: Runtime, replica: ReplicaId, line: str) -> None:
    """Until the replica has written `line`."""

    async def written() -> bool:
        return line in await runtime.logs(replica, 100)

    await wait_for(written)


async def stop_to_the_end(runtime: Runtime, replica: ReplicaId, *, force: bool) -> None:
    """As the controller does: repeat until the list omits it."""

    async def gone() -> bool:
        await runtime.stop(replica, force=force)
        return replica not in await see(runtime)

    await wait_for(gone)

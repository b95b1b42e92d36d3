"""The controller killed fifty times under load: every request is answered, and no engine is lost, doubled or left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from modelgrid.client import ControlError, NotRunning
from modelgrid.config.paths import find_paths
from modelgrid.runtimes import census
from modelgrid.spec import ReplicaId, State
from modelgrid.store import open_store

KILLS = 50
CALLERS = 8  # that ask for any model
STEADY_CALLERS = 4  # that ask for the one that is kept: these never wait
LONGEST_LIFE_S = 0.6  # of a controller
PATIENCE_S = 60.0  # of a caller, over all its tries

MODELS = {
    "kept": faulty("--delay", "0.1", memory="40MiB", scaling={"min": 1}),
    "pair": faulty("--delay", "0.05", memory="60MiB", scaling={"max": 2, "target": 1, "idle": "1s"}),
    "quick": faulty("--start-delay", "0.2", memory="150MiB", scaling={"idle": "1s"}),
    "slow": faulty("--start-delay", "1", memory="200MiB", scaling={"idle": "2s"}),
    "lingers": faulty("--stop-delay", "0.4", memory="150MiB", scaling={"idle": "1s"}),
    "stubborn": faulty("--refuse-stop", memory="150MiB", stop_grace="0.5s", scaling={"idle": "1s"}),
}
BUDGET = "450MiB"

_log = logging.getLogger(__name__)


def test_a_controller_that_is_killed_fifty_times_under_load_loses_no_request_and_no_engine(
    make_daemon: MakeDaemon,
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    _log.warning("the seed is %d", seed)  # pytest shows it where the test fails
    daemon = make_daemon(MODELS, memory=BUDGET, workers=2).start()
    with _standbys(daemon) as relief:
        load = asyncio.run(_kill_under_load(daemon, relief, random.Random(seed)))
    _log.warning(load.told())
    assert load.unanswered[:5] == []
    assert load.seen_twice == set()
    assert set(load.answered) == set(MODELS)
    with contextlib.suppress(AssertionError):
        until("replicas, processes and store agree", lambda: not _differences(daemon))
    assert _differences(daemon) == []
    starts = Counter(event.replica for model in MODELS for event in daemon.events(model) if event.what == "start")
    assert max(starts.values()) == 1
    stopped = daemon.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert daemon.processes() == []
    assert _saved(daemon) == {}


# Controllers: as many as are needed, each waiting for the one before it to be gone.


@dataclass
class _Relief:
    """Further controllers, started as the supervisor starts its own: they wait for its lock. So the next one goes on
    at once, where the supervisor would pause after a few deaths in a row."""

    daemon: Daemon
    argv: list[str]
    environ: dict[str, str]
    lock: int  # the lock file's inode
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def call(self) -> None:
        """Have one more stand by."""
        with (self.daemon.home / "standbys.out").open("ab") as out:
            self.children.append(
                subprocess.Popen(
                    self.argv,
                    env=self.environ,
                    cwd=self.daemon.home,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def in_charge(self) -> int | None:
        """The process that holds the lock."""
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and words[5].endswith(f":{self.lock}"):
                return int(words[4])
        return None

    def kill(self) -> None:
        """Kill who is in charge, and wait until another one is."""
        pid = until("a controller is in charge", self.in_charge)
        psutil.Process(pid).kill()
        until("another one is", lambda: self.in_charge() not in (None, pid))
        for child in self.children:
            child.poll()


@contextlib.contextmanager
def _standbys(daemon: Daemon) -> Iterator[_Relief]:
    (controller,) = daemon.controllers()
    lock = find_paths({"MODELGRID_HOME": str(daemon.home)}).run / "controller.lock"
    environ = {name: value for name, value in controller.environ().items() if name != "MODELGRID_READY"}
    relief = _Relief(daemon, controller.cmdline(), environ, lock.stat().st_ino)
    try:
        for _ in range(3):
            relief.call()
        yield relief
    finally:
        for child in relief.children:
            child.kill()
            child.wait()
        # What is left is the supervisor's own, which may pause for some seconds first.
        until("the supervisor's own is in charge", lambda: len(daemon.controllers()) == 1 and relief.in_charge())


# The load, and what was seen of it from outside.


@dataclass
class _Load:
    answered: Counter[str] = field(default_factory=Counter)
    told_to_come_again: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    seen_twice: set[str] = field(default_factory=set)
    longest_s: float = 0.0

    def told(self) -> str:
        return (
            f"{self.answered.total()} answered {dict(self.answered)}, "
            f"told to come again {dict(self.told_to_come_again)}, "
            f"the longest wait {self.longest_s:.1f} s, {len(self.unanswered)} unanswered"
        )


async def _kill_under_load(daemon: Daemon, relief: _Relief, dice: random.Random) -> _Load:
    load = _Load()
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for models in [sorted(MODELS)] * CALLERS + [["kept"]] * STEADY_CALLERS:
            group.create_task(_call(daemon, load, models, random.Random(dice.random()), over))
        try:
            for _ in range(KILLS):
                relief.call()
                await _moment(daemon, dice)
                await asyncio.to_thread(relief.kill)
                load.seen_twice |= await asyncio.to_thread(_twice, daemon)
        finally:
            over.set()
    return load


async def _call(daemon: Daemon, load: _Load, models: Sequence[str], dice: random.Random, over: asyncio.Event) -> None:
    """One caller: a request after the other, each to its answer."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=PATIENCE_S, trust_env=False) as client:
        while not over.is_set():
            model = dice.choice(models)
            came = time.monotonic()
            why = await _ask(client, load, model, is_stream=dice.random() < 0.5)
            waited_s = time.monotonic() - came
            load.longest_s = max(load.longest_s, waited_s)
            if why is None:
                load.answered[model] += 1
            else:
                load.unanswered.append(f"{model} after {waited_s:.1f} s: {why}")


async def _ask(client: httpx.AsyncClient, load: _Load, model: str, *, is_stream: bool) -> str | None:
    """Why a request got no answer; None when it did. Told to come again, it comes again when it was told to."""
    body = {"model": model, "stream": is_stream, "messages": [{"role": "user", "content": "hello"}]}
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        if answer.status_code == 200:
            return None if not is_stream or answer.text.endswith("data: [DONE]\n\n") else f"cut off: {answer.text}"
        pause_s = float(answer.headers.get("retry-after", "nan"))
        if answer.status_code != 503 or not time.monotonic() + pause_s < deadline:
            return f"{answer.status_code}: {answer.text}"
        load.told_to_come_again[model] += 1
        await asyncio.sleep(pause_s)


async def _moment(daemon: Daemon, dice: random.Random) -> None:
    """Some time, or just after something was ordered: between the save and the deed, or in the midst of it."""
    what = dice.choice(["", "", "plan.start", "plan.stop", "plan.drain"])
    log = daemon.home / "state" / "logs" / "modelgrid.log"
    size = log.stat().st_size
    deadline = time.monotonic() + (dice.uniform(0.0, LONGEST_LIFE_S) if not what else 3 * LONGEST_LIFE_S)
    while time.monotonic() < deadline:
        if what and what.encode() in log.read_bytes()[size:]:
            await asyncio.sleep(dice.choice([0.0, 0.0, 0.003, 0.03]))
            return
        await asyncio.sleep(0.001)


def _twice(daemon: Daemon) -> set[str]:
    """Replicas of two processes: the test engine has one."""
    counts: Counter[str] = Counter()
    for process in daemon.engines():
        with contextlib.suppress(psutil.Error):
            counts[process.environ()[census.REPLICA]] += 1
    return {replica for replica, count in counts.items() if count > 1}


def _differences(daemon: Daemon) -> list[str]:
    """Where the control API, the store and the processes say different things."""
    try:
        status = daemon.status()
    except (NotRunning, ControlError) as error:
        return [str(error)]
    listed = {ReplicaId(replica.id): replica.state for replica in status.replicas}
    running = sorted(process.environ()[census.REPLICA] for process in daemon.engines())
    saved = _saved(daemon)
    found = []
    if running != sorted(listed):
        found.append(f"processes of {running}, replicas {listed}")
    if saved != listed:
        found.append(f"saved {saved}, replicas {listed}")
    if set(listed.values()) - {State.READY.value}:
        found.append(f"not at rest: {listed}")
    if status.memory_planned_bytes != sum(replica.memory_bytes for replica in status.replicas):
        found.append(f"{status.memory_planned_bytes} planned for {status.replicas}")
    return found


def _saved(daemon: Daemon) -> dict[ReplicaId, str]:
    store = open_store(find_paths({"MODELGRID_HOME": str(daemon.home)}).store)
    try:
        return {replica.id: replica.state.value for replica in store.saved().replicas}
    finally:
        store.close()

"""The controller killed fifty times under load: every request is answered, and no engine is lost, doubled or left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter

import psutil

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.patient import Answers, call
from e2e.standbys import Relief, standbys
from modelgrid.client import ControlError, NotRunning
from modelgrid.config.paths import find_paths
from modelgrid.runtimes import census
from modelgrid.spec import ReplicaId, State
from modelgrid.store import open_store

KILLS = 50
CALLERS = 8  # that ask for any model
STEADY_CALLERS = 4  # that ask for the one that is kept: these never wait
LONGEST_LIFE_S = 0.6  # of a controller

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
    with standbys(daemon) as relief:
        answers, seen_twice = asyncio.run(_kill_under_load(daemon, relief, random.Random(seed)))
    _log.warning(answers.told())
    assert answers.unanswered[:5] == []
    assert set(answers.answered) == set(MODELS)
    assert seen_twice == set()
    with contextlib.suppress(AssertionError):
        until("replicas, processes and store agree", lambda: not _differences(daemon))
    assert _differences(daemon) == []
    starts = Counter(event.replica for model in MODELS for event in daemon.events(model) if event.what == "start")
    assert max(starts.values()) == 1
    stopped = daemon.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert daemon.processes() == []
    assert _saved(daemon) == {}


async def _kill_under_load(daemon: Daemon, relief: Relief, dice: random.Random) -> tuple[Answers, set[str]]:
    answers = Answers()
    seen_twice: set[str] = set()
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for models in [sorted(MODELS)] * CALLERS + [["kept"]] * STEADY_CALLERS:
            group.create_task(call(daemon, answers, models, random.Random(dice.random()), over))
        try:
            for _ in range(KILLS):
                relief.call()
                await _moment(daemon, dice)
                await asyncio.to_thread(relief.kill)
                seen_twice |= await asyncio.to_thread(_twice, daemon)
        finally:
            over.set()
    return answers, seen_twice


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

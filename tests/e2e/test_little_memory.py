"""A machine with little memory never exceeds it: measured from outside, by a process that asks the kernel only."""

from __future__ import annotations

import asyncio
import logging
import random

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.patient import Answers, call
from e2e.standbys import Relief, standbys
from e2e.watching import watched

MIB = 1 << 20
BUDGET_BYTES = 600 * MIB
CALLERS = 6
ENOUGH_ENGINES = 25  # that have come and gone
KILLS = 6

_log = logging.getLogger(__name__)

# Each really holds what it says, but for some MiB, from its start on.
MODELS = {
    "one": faulty("--eat-memory", "115MiB", memory="150MiB", scaling={"idle": "2s"}),
    "two": faulty("--eat-memory", "165MiB", memory="200MiB", scaling={"idle": "2s"}),
    "slow": faulty("--eat-memory", "215MiB", "--start-delay", "0.5", memory="250MiB", scaling={"idle": "2s"}),
    "lingers": faulty("--eat-memory", "215MiB", "--stop-delay", "1", memory="250MiB", scaling={"idle": "2s"}),
    "stubborn": faulty("--eat-memory", "265MiB", "--refuse-stop", memory="300MiB", stop_grace="1s"),
    "pair": faulty("--eat-memory", "65MiB", memory="100MiB", scaling={"max": 2, "target": 1, "idle": "2s"}),
}


def test_engines_that_swap_all_the_time_never_hold_more_than_the_machine_may_take(make_daemon: MakeDaemon) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    _log.warning("the seed is %d", seed)  # pytest shows it where the test fails
    daemon = make_daemon(MODELS, memory="600MiB").start()
    with standbys(daemon) as relief, watched(daemon.home) as seen:
        answers = asyncio.run(_swap(daemon, relief, random.Random(seed)))
    _log.warning("%s; %s", answers.told(), seen)
    assert answers.unanswered[:5] == []
    assert set(answers.answered) == set(MODELS)
    assert seen["samples"] > 200
    assert len(seen["engines"]) >= ENOUGH_ENGINES
    assert seen["together"] >= 3
    assert 450 * MIB < seen["most_bytes"] <= BUDGET_BYTES, seen["most"]


async def _swap(daemon: Daemon, relief: Relief, dice: random.Random) -> Answers:
    """Callers that ask for more models than there is room for, until enough engines have been started; meanwhile the
    controller is killed a few times, just after it has ordered that one ends."""
    answers = Answers()
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call(daemon, answers, sorted(MODELS), random.Random(dice.random()), over))
        try:
            for kill in range(KILLS):
                relief.call()
                await asyncio.to_thread(_until_ordered, daemon, "start", ENOUGH_ENGINES * (kill + 1) // KILLS)
                await asyncio.to_thread(_until_ordered, daemon, "stop", _ordered(daemon, "stop") + 1)
                await asyncio.to_thread(relief.kill)
        finally:
            over.set()
    return answers


def _until_ordered(daemon: Daemon, what: str, count: int) -> None:
    until(f"{count} orders to {what}", lambda: _ordered(daemon, what) >= count, 60.0)


def _ordered(daemon: Daemon, what: str) -> int:
    return daemon.log().count(f"plan.{what}")

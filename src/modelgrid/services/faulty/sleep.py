"""Sleep as vLLM has it: POST /sleep gives memory back, POST /wake_up takes it again, GET /is_sleeping tells which.

Faults: ``hang`` never answers, ``error`` answers 500, ``lose`` does it and closes the connection without an answer,
``die`` ends the process. Sleep may ``lie`` as well: it says that it sleeps, and keeps its memory.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable

from modelgrid.services.faulty.answer import Answer, error, of_json
from modelgrid.services.faulty.ending import die, log
from modelgrid.services.faulty.memory import Memory

FAULTS = ("hang", "error", "lose", "die")


class Sleep:
    """Whether the engine sleeps, and what it makes of being told to. Faults hold for the first `sleep_faults` times."""

    def __init__(self, options: argparse.Namespace, memory: Memory) -> None:
        self._options = options
        self._memory = memory
        self._faults_left: int = options.sleep_faults
        self.is_sleeping = False
        self.times = 0

    async def answer(self, method: str, path: str) -> Answer | None:
        """The answer to one of the three; None for every other path, and `Answer` 0 where the connection is closed."""
        if not self._options.sleepable:
            return None
        match (method, path):
            case ("GET", "/is_sleeping"):
                return of_json({"is_sleeping": self.is_sleeping})
            case ("POST", "/sleep"):
                return await self._told(self._options.sleep_fault, self._sleep)
            case ("POST", "/wake_up"):
                return await self._told(self._options.wake_fault, self._wake)
        return None

    async def _told(self, fault: str | None, do: Callable[[], None]) -> Answer:
        fault = fault if self._faults_left > 0 else None
        if fault is not None:
            self._faults_left -= 1
        match fault:
            case "hang":
                await asyncio.Event().wait()
            case "error":
                return of_json(error("told to fail"), 500)
            case "die":
                die("RuntimeError: told to die as it turns", 1)
            case "lie":
                self.is_sleeping = True
                return of_json({})
        await asyncio.sleep(self._options.wake_delay if self.is_sleeping else self._options.sleep_delay)
        do()
        return CLOSE if fault == "lose" else of_json({})

    def _sleep(self) -> None:
        if not self.is_sleeping:
            self.times += 1
            self._memory.let_go()
            log("asleep")
        self.is_sleeping = True

    def _wake(self) -> None:
        if self.is_sleeping:
            self._memory.take()
            log("awake")
        self.is_sleeping = False


CLOSE = Answer(0, ())

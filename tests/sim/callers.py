"""Callers of a simulated world: they ask, wait where there is no replica, and are answered or asked to come again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelgrid.spec import ModelName, ReplicaId
from modelgrid.spec.rate import Rate
from sim.grid import TICK_S, WATCHED_S, Process

PLACES = 8  # requests that one replica takes at a time
SPELL_S = 30.0  # after which a model may be asked for more, or less


@dataclass
class Callers:
    """When each waiting request came; when each running one ends. Times are the world's own."""

    dice: random.Random
    models: Sequence[ModelName]
    arrivals: float = 0.15  # by tick and model
    request_s: float = 6.0  # the longest
    is_moody: bool = False  # a model is asked for now more, now less
    waiting: dict[ModelName, list[float]] = field(default_factory=dict)
    running: dict[ReplicaId, list[float]] = field(default_factory=dict)
    last_used: dict[ModelName, float] = field(default_factory=dict)
    answered: Counter[ModelName] = field(default_factory=Counter)
    refused: Counter[ModelName] = field(default_factory=Counter)
    broken: Counter[ModelName] = field(default_factory=Counter)
    longest_s: dict[ModelName, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    _served_by: dict[ReplicaId, ModelName] = field(default_factory=dict)
    rates: dict[ModelName, Rate] = field(default_factory=dict)
    _mood: dict[ModelName, float] = field(default_factory=dict)

    def tick(
        self, now: float, table: Mapping[ModelName, Sequence[ReplicaId]], there: Mapping[ReplicaId, Process]
    ) -> None:
        """Requests end, come, and are sent to who is in the routing table."""
        for id, ends in self.running.items():
            if ends and id in there and there[id].is_up:
                left = [end for end in ends if end > now]
                self.answered[self._served_by[id]] += len(ends) - len(left)
                self.running[id] = left
        for name in self.models:
            queue = self.waiting.setdefault(name, [])
            if self.dice.random() < self._chance(name, now):
                queue.append(now)
                self.rates[name] = self.rates.get(name, Rate()).counted(1, now)
            if queue:
                self._send(name, queue, now, table.get(name, ()), there)

    def break_off(self, id: ReplicaId, now: float) -> None:
        """What ran there has not sent a byte yet: it waits again, as the gateway does it."""
        ends = self.running.pop(id, [])
        if ends:
            name = self._served_by[id]
            self.broken[name] += len(ends)
            self.waiting.setdefault(name, [])[:0] = [now] * len(ends)

    def refuse(self, name: ModelName) -> None:
        """Who waits is told to come again, and doesn't."""
        self.refused[name] += len(self.waiting.get(name, []))
        self.waiting[name] = []

    def _chance(self, name: ModelName, now: float) -> float:
        if self.is_moody and (now % SPELL_S < TICK_S or name not in self._mood):
            self._mood[name] = self.arrivals * self.dice.choice([0.0, 0.3, 1.0, 4.0])
        return min(self.arrivals * 4, self._mood.get(name, self.arrivals))

    def _send(
        self,
        name: ModelName,
        queue: list[float],
        now: float,
        ids: Sequence[ReplicaId],
        there: Mapping[ReplicaId, Process],
    ) -> None:
        for id in ids:
            process = there.get(id)
            if process is None or process.exited:
                continue
            if process.is_asleep:
                if now - process.asleep_since > WATCHED_S + 2 * TICK_S:
                    self.violations.append(f"a request was sent to {id}, which sleeps")
                continue  # nobody knows it yet, and it is sent again once it is known
            running = self.running.setdefault(id, [])
            self._served_by[id] = name
            while queue and len(running) < PLACES:
                came = queue.pop(0)
                self.longest_s[name] = max(self.longest_s.get(name, 0.0), now - came)
                self.last_used[name] = now
                running.append(now + self.dice.uniform(0.1, self.request_s))

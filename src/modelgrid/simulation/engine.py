"""A simulated engine: a process that loads, serves many requests at once, sleeps and ends."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from modelgrid.simulation.request import Call
from modelgrid.simulation.speed import Speed
from modelgrid.spec import ModelName, ReplicaId
from modelgrid.spec.machine import Share

_EPSILON = 1e-9


class Phase(StrEnum):
    """What an engine is doing."""

    LOADING = "loading"
    READY = "ready"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WAKING = "waking"
    ENDING = "ending"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Engine:
    """One process. The decode loop is not stepped: all who write are equally far along a common count of steps, so an
    answer of n tokens ends n steps after its first token, however long each of them takes by then."""

    id: ReplicaId
    model: ModelName
    machine: str
    shares: tuple[Share, ...]
    speed: Speed
    started: float
    phase: Phase = Phase.LOADING
    since: float = 0.0  # of this phase
    last_used: float = 0.0
    keeps: tuple[Share, ...] = ()  # what it holds while it sleeps
    version: int = 0  # of its next event: an older one no longer counts
    queue: deque[Call] = field(default_factory=deque)
    reading: Call | None = None
    reading_ends: float = 0.0
    writing: list[tuple[float, int, Call]] = field(default_factory=list)  # a heap: the step at which each ends
    steps: float = 0.0
    steps_at: float = 0.0
    ttft: list[float] = field(default_factory=list)  # of first tokens since `take_ttft` was last called

    @property
    def in_flight(self) -> int:
        """Requests that it has."""
        return len(self.queue) + (self.reading is not None) + len(self.writing)

    def take(self, call: Call, now: float) -> None:
        """Begin with a request, or let it wait inside."""
        self.advance(now)
        self.queue.append(call)
        self.last_used = now
        self._read_next(now)

    def drop(self, call: Call, now: float) -> None:
        """Its caller has left."""
        self.advance(now)
        if self.reading is call:
            self.reading = None
        elif call in self.queue:
            self.queue.remove(call)
        else:
            self.writing = [entry for entry in self.writing if entry[2] is not call]
            heapq.heapify(self.writing)
        self._read_next(now)

    def advance(self, now: float) -> list[Call]:
        """Do what is due; tells which requests are answered."""
        done: list[Call] = []
        if self.writing:
            self.steps += (now - self.steps_at) / self.speed.decode_s(len(self.writing))
        self.steps_at = now
        while self.writing and self.writing[0][0] <= self.steps + _EPSILON:
            done.append(heapq.heappop(self.writing)[2])
        if self.reading is not None and self.reading_ends <= now:
            call, self.reading = self.reading, None
            call.first = now
            self.ttft.append(now - call.request.at)
            if call.request.output <= 1:
                done.append(call)
            else:
                heapq.heappush(self.writing, (self.steps + call.request.output - 1, call.number, call))
        for call in done:
            call.done = now
            self.last_used = now
        self._read_next(now)
        return done

    def next_at(self) -> float | None:
        """When something is due, as things are now."""
        ends: list[float] = []
        if self.reading is not None:
            ends.append(self.reading_ends)
        if self.writing:
            left = max(0.0, self.writing[0][0] - self.steps)
            ends.append(self.steps_at + left * self.speed.decode_s(len(self.writing)))
        return min(ends, default=None)

    def take_ttft(self) -> list[float]:
        """The times to the first tokens that came since the last time."""
        told, self.ttft = self.ttft, []
        return told

    def calls(self) -> list[Call]:
        """The requests that it has."""
        return [*self.queue, *([self.reading] if self.reading else []), *(entry[2] for entry in self.writing)]

    def _read_next(self, now: float) -> None:
        if self.reading is None and self.queue and len(self.writing) < self.speed.most_running:
            self.reading = self.queue.popleft()
            self.reading_ends = now + self.reading.request.input / self.speed.prefill_tokens_s

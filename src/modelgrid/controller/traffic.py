"""What gateway workers say of their traffic, put together. What one of them has not said is unknown, never none."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelgrid.spec import Demand, Load, Rate

_SILENT_S = 5.0  # a worker that was not heard for so long: nobody knows what it has in flight
_MISSING_S = 10.0  # workers that did not connect for so long are no longer waited for

_NEVER = Rate()


@dataclass(slots=True)
class _Worker:
    heard: float
    load: Load | None = None
    waiting: dict[str, tuple[int, float]] = field(default_factory=dict)  # model: how many, since when


class Traffic:
    """The demand and the load of all workers. Times are seconds since the epoch."""

    def __init__(self, expected: int, now: float) -> None:
        self.expected = expected
        self.last_used: dict[str, float] = {}
        self.rates: dict[str, Rate] = {}
        self._complete = now  # when as many workers as expected were last connected
        self._workers: dict[str, _Worker] = {}

    @property
    def connected(self) -> int:
        """Workers that are connected."""
        return len(self._workers)

    def join(self, worker: str, now: float) -> None:
        """A worker has connected."""
        self._workers[worker] = _Worker(now)

    def leave(self, worker: str) -> None:
        """A worker's connection has ended; what it had in flight is gone, or will be told by its next connection."""
        self._workers.pop(worker, None)

    def demand(self, worker: str, demand: Demand, now: float) -> bool:
        """Take in a demand; tells whether it is for a model that nobody waited for before."""
        if (known := self._workers.get(worker)) is None:
            return False
        known.heard = now
        is_new = demand.waiting > 0 and self.waiting(demand.model)[0] == 0
        if demand.waiting:
            known.waiting[demand.model] = (demand.waiting, now - demand.oldest_s)
        else:
            known.waiting.pop(demand.model, None)
        return is_new

    def load(self, worker: str, load: Load, now: float) -> None:
        """Take in what a worker has in flight."""
        if (known := self._workers.get(worker)) is None:
            return
        known.heard = now
        known.load = load
        for model in load.requests:
            self.last_used[model] = now
        for model, arrived in load.arrived.items():
            self.rates[model] = self.rates.get(model, _NEVER).counted(arrived, now)

    def used(self, model: str, now: float) -> float:
        """When a request for `model` last ended; 0: never. After a clock was put back: at the latest now."""
        last = self.last_used.get(model, 0.0)
        if last > now:
            last = self.last_used[model] = now
        return last

    def waiting(self, model: str) -> tuple[int, float | None]:
        """How many requests wait for `model`, and since when the oldest does."""
        found = [worker.waiting[model] for worker in self._workers.values() if model in worker.waiting]
        if not found:
            return 0, None
        return sum(count for count, _ in found), min(since for _, since in found)

    def in_flight(self, replica: str, table: int, now: float) -> int | None:
        """Requests on `replica` in all workers that act on table `table` or a later one; None: unknown."""
        if self.connected >= self.expected:
            self._complete = now
        elif now - self._complete < _MISSING_S:
            return None
        total = 0
        for worker in self._workers.values():
            if worker.load is None or worker.load.table < table or now - worker.heard > _SILENT_S:
                return None
            total += worker.load.in_flight.get(replica, 0)
        return total

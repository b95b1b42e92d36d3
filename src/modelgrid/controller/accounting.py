"""What workers tell that was used, written to the store each second. Until it is written it is kept, and told again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from modelgrid.controller.legacies import read_legacies
from modelgrid.spec.usage import Tariff, Used
from modelgrid.store import Store, StoreError, Told

EVERY_S = 1.0
FORGET_EVERY_S = 3600.0  # and not before: workers that an earlier controller knew need a moment to come back

log = structlog.get_logger()

_Place = tuple[str, str, str, str]  # the incarnation, and of its account the key, the model and the operation


class Accounting:
    """Takes what is told in the controller's loop, and writes it in a thread."""

    def __init__(self, store: Store, folder: Path, tariff: Callable[[], Tariff], clock: Callable[[], float]) -> None:
        self._store = store
        self._folder = folder
        self._tariff = tariff
        self._clock = clock
        self._incarnations: dict[str, str] = {}  # of the workers that are connected
        self._seen: dict[str, None] = {}  # that were connected since the last time of forgetting
        self._news: dict[_Place, Told] = {}  # the latest, which holds all before it
        self._forgot = clock()
        self._problem: str | None = None

    def join(self, worker: str, incarnation: str) -> None:
        """A worker has connected; it tells all that it has counted since it began."""
        self._incarnations[worker] = incarnation or worker
        self._seen[incarnation or worker] = None

    def leave(self, worker: str) -> None:
        """A worker's connection has ended; it may come back."""
        self._incarnations.pop(worker, None)

    def take(self, worker: str, used: Iterable[Used]) -> None:
        """What it has counted, since it began."""
        incarnation = self._incarnations.get(worker)
        if incarnation is None:
            return
        for one in used:
            self._news[incarnation, one.key, one.model, one.operation] = Told(incarnation, one)

    async def run(self) -> None:
        """Write, each second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.settle()

    def close(self) -> None:
        """Write what is left."""
        news, self._news = self._news, {}
        self._write(news, None)

    async def settle(self) -> None:
        """Write what is new, in a thread; after an hour, forget what is old."""
        news, self._news = self._news, {}
        living = None
        if self._clock() - self._forgot >= FORGET_EVERY_S:
            living = list(self._seen)
            self._seen = dict.fromkeys(self._incarnations.values())
            self._forgot = self._clock()
        is_written = False
        try:
            is_written = await asyncio.to_thread(self._write, news, living)
        finally:
            if not is_written:  # or who waited was cancelled, and nobody knows: written twice is counted once
                self._news = {**news, **self._news}

    def _write(self, news: Mapping[_Place, Told], living: Iterable[str] | None) -> bool:
        try:
            legacies = list(read_legacies(self._folder))
            left = (Told(legacy.incarnation, used) for _, legacy in legacies for used in legacy.used)
            if news or legacies:
                self._store.write_usage([*news.values(), *left], self._clock(), self._tariff())
            for path, _ in legacies:
                path.unlink(missing_ok=True)
            if living is not None:
                self._store.forget_usage(self._clock(), living)
        except (StoreError, OSError) as error:
            if self._problem != str(error):
                self._problem = str(error)
                log.error("usage.waits", why=self._problem)
            return False
        if self._problem is not None:
            self._problem = None
            log.info("usage.goes_on")
        return True

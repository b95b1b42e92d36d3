"""What workers tell reaches the store once, also where the store, the worker or the controller is away for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from modelgrid.controller.accounting import FORGET_EVERY_S, Accounting
from modelgrid.spec.usage import LEGACY, Counts, Legacy, Price, Tariff, Used
from modelgrid.store import MemoryStore, UsageAsked


def used(requests: int, model: str = "m") -> Used:
    return Used("k", model, "chat", Counts(requests=requests))


class Stage:
    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.folder = folder
        self.store = MemoryStore()
        self.accounting = self.controller()

    def controller(self) -> Accounting:
        return Accounting(self.store, self.folder, lambda: Tariff({"m": Price(request=2.0)}, "EUR"), lambda: self.now)

    def requests(self) -> int:
        return sum(row.counts.requests for row in self.store.usage(UsageAsked()))

    def leave(self, incarnation: str, requests: int) -> None:
        legacy = Legacy(incarnation, (used(requests),))
        (self.folder / LEGACY.format(incarnation)).write_bytes(msgspec.json.encode(legacy))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_last_that_was_told_is_written_with_its_cost(stage: Stage) -> None:
    stage.accounting.join("w/1", "i1")
    for count in (1, 4, 9):
        stage.accounting.take("w/1", [used(count)])
    stage.accounting.close()
    (row,) = stage.store.usage(UsageAsked())
    assert (row.counts.requests, row.cost) == (9, 18.0)


def test_the_next_controller_is_told_again_and_counts_nothing_twice(stage: Stage) -> None:
    for count in (5, 5, 8):
        accounting = stage.controller()
        accounting.join("w/1", "i1")
        accounting.take("w/1", [used(count)])
        accounting.close()
    assert stage.requests() == 8


def test_a_worker_that_begins_anew_with_the_same_name_and_pid_is_another(stage: Stage) -> None:
    for incarnation in ("i1", "i2"):
        stage.accounting.join("w/1", incarnation)
        stage.accounting.take("w/1", [used(5)])
        stage.accounting.leave("w/1")
    stage.accounting.take("w/1", [used(99)])  # of nobody
    stage.accounting.close()
    assert stage.requests() == 10


def test_while_the_store_is_away_what_is_told_is_kept(stage: Stage) -> None:
    async def scene() -> None:
        stage.accounting.join("w/1", "i1")
        stage.accounting.take("w/1", [used(5), used(1, "n")])
        stage.store.broken = "its disk is full"
        await stage.accounting.settle()
        stage.accounting.take("w/1", [used(7)])
        await stage.accounting.settle()
        stage.store.broken = None
        await stage.accounting.settle()

    asyncio.run(scene())
    assert stage.requests() == 8


def test_what_workers_left_is_taken_up_once(stage: Stage) -> None:
    stage.accounting.join("w/1", "i1")
    stage.accounting.take("w/1", [used(3)])
    stage.accounting.close()
    stage.leave("i1", 5)
    stage.leave("i2", 2)
    stage.accounting.close()
    assert list(stage.folder.iterdir()) == []
    stage.leave("i1", 5)
    stage.accounting.close()
    assert stage.requests() == 7


def test_while_the_store_is_away_what_workers_left_stays(stage: Stage) -> None:
    stage.leave("i1", 5)
    stage.store.broken = "its disk is full"
    stage.accounting.close()
    assert len(list(stage.folder.iterdir())) == 1


def test_what_cannot_be_read_is_put_aside_and_the_rest_is_counted(stage: Stage) -> None:
    (stage.folder / LEGACY.format("broken")).write_bytes(b"{")
    stage.leave("i2", 2)
    for _ in range(2):
        stage.accounting.close()
    assert stage.requests() == 2
    assert [path.suffix for path in stage.folder.iterdir()] == [".unreadable"]


def test_who_was_here_within_the_hour_is_remembered_and_others_are_forgotten(stage: Stage) -> None:
    async def scene() -> None:
        for worker in ("here", "gone"):
            stage.accounting.join(worker, worker)
            stage.accounting.take(worker, [used(1)])
        stage.accounting.leave("gone")
        for hour in (1, 2):
            stage.now = hour * FORGET_EVERY_S
            await stage.accounting.settle()
        for worker in ("here", "gone"):
            stage.accounting.join(worker, worker)
            stage.accounting.take(worker, [used(2)])
        await stage.accounting.settle()

    asyncio.run(scene())
    assert stage.requests() == 2 + 1 + 2  # the one that was forgotten is taken for another

"""Real processes over one ledger, at the same time and as fast as they can."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import pytest

from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.quota import Gate
from modelgrid.gateway.rows import Rows
from modelgrid.spec.messages import Quota

SLOT = 5
NOW = 60_000.0
DEADLINE_S = 60.0

together = multiprocessing.get_context("fork")


@pytest.fixture
def rows() -> Iterator[Rows]:
    made = Rows(8)
    yield made
    made.close()


def _start(rows: Rows, count: int, work: Callable[[Ledger], None]) -> list[BaseProcess]:
    """As many processes, each with a row, which begin their work at one moment."""
    begin = together.Barrier(count)

    def run(row: int) -> None:
        ledger = Ledger.shared(rows.path, row)
        begin.wait(DEADLINE_S)
        work(ledger)

    processes: list[BaseProcess] = [together.Process(target=run, args=(rows.take(),)) for _ in range(count)]
    for process in processes:
        process.start()
    return processes


def _finish(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in processes] == [0] * len(processes)


@pytest.mark.parametrize(("count", "limit"), [(2, 1), (2, 3), (4, 2)])
def test_concurrency_is_never_exceeded_whoever_asks_at_the_same_time(rows: Rows, count: int, limit: int) -> None:
    inside = together.Value("i", 0)
    most = together.Value("i", 0)
    admitted = together.Value("i", 0)

    def work(ledger: Ledger) -> None:
        gate = Gate(ledger, SLOT, Quota(concurrency=limit))
        for _ in range(100_000):
            if gate.admit(NOW) is None:
                with inside.get_lock():
                    inside.value += 1
                    admitted.value += 1
                    most.value = max(most.value, inside.value)
                with inside.get_lock():
                    inside.value -= 1
                gate.release()

    _finish(_start(rows, count, work))
    assert most.value <= limit
    assert admitted.value > 1000
    row = rows.take()
    assert Ledger.shared(rows.path, row).in_flight(SLOT) == 0  # no count was lost


@pytest.mark.parametrize("count", [2, 4])
def test_a_burst_gets_what_the_minute_allows_and_no_more(rows: Rows, count: int) -> None:
    admitted = together.Value("i", 0)

    def work(ledger: Ledger) -> None:
        gate = Gate(ledger, SLOT, Quota(requests_per_minute=5000))
        mine = sum(gate.admit(NOW) is None for _ in range(20_000))
        with admitted.get_lock():
            admitted.value += mine

    _finish(_start(rows, count, work))
    assert 0.99 * 5000 <= admitted.value <= 5000


def test_a_worker_killed_in_the_midst_leaves_no_counts_and_takes_none_of_the_others(rows: Rows) -> None:
    counted = together.Value("q", 0)
    row = rows.take()
    own = Ledger.shared(rows.path, row)

    def work(ledger: Ledger) -> None:
        while True:
            ledger.begin(SLOT)
            ledger.wait(SLOT)
            counted.value += 1

    (victim,) = _start(rows, 1, work)
    while counted.value < 10_000:
        own.begin(SLOT)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(DEADLINE_S)
    mine = own.in_flight(SLOT) - own.elsewhere(SLOT)
    assert own.elsewhere(SLOT) >= 10_000
    (other,) = {0, 1} - {row}
    rows.settle(other)
    assert (own.elsewhere(SLOT), own.in_flight(SLOT), own.waiting(SLOT)) == (0, mine, 0)
    successor = Ledger.shared(rows.path, other)
    successor.begin(SLOT)
    assert own.in_flight(SLOT) == mine + 1

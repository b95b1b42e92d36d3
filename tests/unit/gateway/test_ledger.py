"""A ledger's rows: what one worker writes, the others read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelgrid.gateway.ledger import HEADER_BYTES, LAYOUT, ROW_BYTES, ROWS, SLOTS, Ledger, LedgerError, open_ledger
from modelgrid.gateway.rows import LINGER_S, NoRow, Rows


@pytest.fixture
def rows() -> Iterator[Rows]:
    made = Rows(4)
    yield made
    made.close()


def _worker(rows: Rows) -> tuple[int, Ledger]:
    row = rows.take()
    return row, Ledger.shared(rows.path, row)


def test_alone_counts_what_is_begun_and_not_ended() -> None:
    ledger = Ledger.alone()
    for _ in range(3):
        ledger.begin(7)
    ledger.end(7)
    ledger.wait(7)
    ledger.wait(7)
    ledger.wait_over(7)
    assert (ledger.in_flight(7), ledger.waiting(7), ledger.elsewhere(7), ledger.is_alone) == (2, 1, 0, True)
    assert (ledger.in_flight(6), ledger.in_flight(8), ledger.waiting(8)) == (0, 0, 0)


def test_slot_0_counts_nothing() -> None:
    ledger = Ledger.alone()
    ledger.begin(0)
    ledger.wait(0)
    assert (ledger.in_flight(0), ledger.waiting(0)) == (0, 0)
    ledger.end(0)
    ledger.wait_over(0)
    assert (ledger.in_flight(0), ledger.waiting(0)) == (0, 0)


def test_the_last_slot_is_one_and_there_is_none_behind_it() -> None:
    ledger = Ledger.alone()
    ledger.begin(SLOTS - 1)
    assert ledger.in_flight(SLOTS - 1) == 1
    with pytest.raises(IndexError):
        ledger.begin(SLOTS)


def test_workers_read_each_others_counts(rows: Rows) -> None:
    (_, one), (_, two), (_, three) = _worker(rows), _worker(rows), _worker(rows)
    one.begin(5)
    two.begin(5)
    two.begin(5)
    three.wait(5)
    assert [ledger.in_flight(5) for ledger in (one, two, three)] == [3, 3, 3]
    assert [ledger.elsewhere(5) for ledger in (one, two, three)] == [2, 1, 3]
    assert [ledger.waiting(5) for ledger in (one, two, three)] == [1, 1, 1]
    assert not one.is_alone


def test_a_worker_is_alone_until_another_has_a_row(rows: Rows) -> None:
    _, one = _worker(rows)
    one.begin(5)
    before = one.is_alone
    _, two = _worker(rows)
    assert (before, one.is_alone) == (True, False)
    two.begin(5)
    assert one.in_flight(5) == 2


def test_what_a_dead_worker_had_in_flight_or_waiting_is_gone_and_the_others_counts_stay(rows: Rows) -> None:
    (row, one), (_, two) = _worker(rows), _worker(rows)
    for slot in (1, 64, SLOTS - 1):
        one.begin(slot)
        one.wait(slot)
        two.begin(slot)
    rows.give_back(row, now=10.0)
    for slot in (1, 64, SLOTS - 1):
        assert (two.in_flight(slot), two.elsewhere(slot), two.waiting(slot)) == (1, 0, 0)


def test_a_row_given_back_counts_until_its_last_minutes_are_over(rows: Rows) -> None:
    (row, _), (_, two) = _worker(rows), _worker(rows)
    rows.give_back(row, now=10.0)
    rows.forget(now=10.0 + LINGER_S - 0.1)
    before = two.is_alone
    rows.forget(now=10.0 + LINGER_S)
    assert (before, two.is_alone) == (False, True)


def test_a_row_taken_again_is_not_forgotten(rows: Rows) -> None:
    (row, _), (_, two) = _worker(rows), _worker(rows)
    rows.give_back(row, now=10.0)
    again, three = _worker(rows)
    assert again == row
    rows.forget(now=1000.0)
    three.begin(5)
    assert two.elsewhere(5) == 1


def test_there_are_no_more_rows_than_were_made(rows: Rows) -> None:
    taken = [rows.take() for _ in range(4)]
    assert sorted(taken) == [0, 1, 2, 3]
    with pytest.raises(NoRow, match="all 4 rows"):
        rows.take()
    rows.give_back(2, now=0.0)
    assert rows.take() == 2


def test_a_row_that_still_counts_is_given_out_before_one_that_nobody_reads(rows: Rows) -> None:
    first, second = rows.take(), rows.take()
    rows.give_back(first, now=1.0)
    rows.give_back(second, now=2.0)
    rows.forget(now=LINGER_S + 1.5)
    assert rows.take() == second


def test_every_one_of_the_most_rows_can_be_read() -> None:
    rows = Rows(1000)
    ledgers = [_worker(rows)[1] for _ in range(ROWS)]
    for ledger in ledgers:
        ledger.begin(3)
    assert {ledger.in_flight(3) for ledger in ledgers} == {ROWS}
    assert {ledger.elsewhere(3) for ledger in ledgers} == {ROWS - 1}
    with pytest.raises(NoRow):
        rows.take()
    rows.close()


def test_clearing_up_takes_no_memory_for_what_was_never_counted(rows: Rows) -> None:
    row, ledger = _worker(rows)
    ledger.begin(5)
    rows.give_back(row, now=0.0)
    assert os.fstat(rows.descriptor).st_blocks * 512 <= 4 * os.sysconf("SC_PAGESIZE")  # the header, and a page or two


def test_memory_of_another_layout_is_told_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    content = (LAYOUT + 1).to_bytes(8, "little") + bytes(HEADER_BYTES + ROW_BYTES - 8)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="another version"):
        Ledger.shared(path, 0)
    open_ledger(path, 0).begin(5)
    assert path.read_bytes() == content


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_that_is_not_there_is_told(rows: Rows, row: int) -> None:
    with pytest.raises(LedgerError, match=f"has no row {row}"):
        Ledger.shared(rows.path, row)


def test_a_worker_that_finds_no_memory_counts_for_itself(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="missing"):
        Ledger.shared(tmp_path / "missing", 0)
    for path in (tmp_path / "missing", None):
        ledger = open_ledger(path, 0)
        ledger.begin(5)
        assert (ledger.in_flight(5), ledger.is_alone) == (1, True)

"""Replicas' log files."""

from __future__ import annotations

import os
from pathlib import Path

from modelgrid.runtimes.replica_logs import ReplicaLogs
from modelgrid.spec import ReplicaId

ONE = ReplicaId("tiny-1")


def write(logs: ReplicaLogs, text: str, replica: ReplicaId = ONE) -> None:
    with logs.open(replica) as file:
        file.write(text.encode())


def test_the_last_lines_are_shown(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path)
    write(logs, "one\r\ntwo\n\nthree")
    assert logs.tail(ONE, 10) == ["one", "two", "", "three"]
    assert logs.tail(ONE, 2) == ["", "three"]
    assert logs.tail(ONE, 0) == []


def test_what_is_not_text_is_shown_all_the_same(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path)
    with logs.open(ONE) as file:
        file.write(b"\xff\xfe\n")
    assert logs.tail(ONE, 1) == ["��"]


def test_an_earlier_log_of_the_id_is_set_aside_and_still_shown(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path)
    write(logs, "first\n")
    write(logs, "second\n")
    assert logs.tail(ONE, 10) == ["first", "second"]
    assert logs.tail(ONE, 1) == ["second"]


def test_a_log_is_capped_under_a_writer_that_goes_on(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path, cap_bytes=1000)
    with logs.open(ONE) as file:
        file.write(b"x" * 999 + b"\nlong\n")
        logs.cap(ONE)
        file.write(b"after\n")
        logs.cap(ONE)
    assert (tmp_path / "tiny-1.log").read_bytes() == b"after\n"
    assert logs.tail(ONE, 2) == ["long", "after"]


def test_a_huge_log_is_read_from_its_end_only(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path)
    write(logs, "x" * 3_000_000 + "\nlast\n")
    assert logs.tail(ONE, 1) == ["last"]
    assert sum(map(len, logs.tail(ONE, 100))) < 2_000_000


def test_old_logs_of_replicas_that_are_gone_are_removed(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path, kept=2)
    names = [ReplicaId(f"tiny-{number}") for number in range(5)]
    for at, name in enumerate(names):
        write(logs, "x\n", name)
        os.utime(tmp_path / f"{name}.log", (at, at))
    logs.prune(keep={names[0]})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-0.log", "tiny-3.log", "tiny-4.log"]


def test_an_id_stays_within_the_folder(tmp_path: Path) -> None:
    logs = ReplicaLogs(tmp_path / "logs")
    write(logs, "x\n", ReplicaId("../../org/model-1"))
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert logs.tail(ReplicaId("../../org/model-1"), 1) == ["x"]

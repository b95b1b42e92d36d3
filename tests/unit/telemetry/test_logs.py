"""One event, one line, in a file that is the process's own."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from modelgrid.telemetry import set_up_logging
from modelgrid.telemetry.logs import _FILE_BYTES

log = structlog.get_logger()
Read = Callable[[], list[str]]
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


@dataclass
class Endpoint:
    """Somebody's object with a secret in its repr."""

    url: str
    key: str


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    before, level, ours = list(root.handlers), root.level, logging.getLogger("modelgrid").level
    yield tmp_path / "logs/modelgrid.log"
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.getLogger("modelgrid").setLevel(ours)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def lines(file: Path) -> Read:
    """What the log says, without the time."""

    def lines() -> list[str]:
        written = file.read_text().splitlines()
        assert all(TIME.match(line) for line in written), written
        return [TIME.sub("", line) for line in written]

    return lines


def test_an_event_is_one_line_of_names_and_values(file: Path, lines: Read) -> None:
    set_up_logging(file)
    log.info("replica.ready", replica="r1", model="a b", ms=12, s=0.123456789, why='said "no"\n', url=None, ok=True)
    log.warning("replica.failed", phases={"spawn": 1.5}, line="a\u2028b")
    log.debug("unheard")
    assert lines() == [
        'info replica.ready replica=r1 model="a b" ms=12 s=0.123457 why="said \\"no\\"\\n" url=null ok=true',
        'warning replica.failed phases={"spawn": 1.5} line="a\\u2028b"',
    ]


def test_other_libraries_are_heard_from_warnings_on(file: Path, lines: Read) -> None:
    set_up_logging(file)
    logging.getLogger("uvicorn.error").info("unheard")
    logging.getLogger("httpx").warning("no route to %s", "host")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    first, second = lines()
    assert first == 'warning httpx message="no route to host"'
    assert second.startswith("warning py.warnings message=")


def test_an_exception_is_part_of_its_line(file: Path, lines: Read) -> None:
    set_up_logging(file)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("step.failed", step=1)
    (line,) = lines()
    assert line.startswith('error step.failed step=1 exception="Traceback')
    assert "ValueError: two\\nlines" in line


def test_no_secret_comes_out_whichever_way_it_got_in(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(file)
    canary = "mg-CANARY0123456789"
    log.info(f"event with Bearer {canary}", api_key="CANARY-1", headers={"Authorization": "CANARY-2", "n": [canary]})
    log.info("object", endpoint=Endpoint("http://u:CANARY-3@h", canary), raw=canary.encode(), many={canary})
    log.info("args %s", canary)
    logging.getLogger("uvicorn.error").error("header Authorization: %s", "Bearer CANARY-4")
    try:
        raise RuntimeError(f"api_key=CANARY-5 {canary}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("httpx").exception("failed")
    out = capsys.readouterr()
    assert len(file.read_text().splitlines()) == 6
    assert "CANARY" not in file.read_text()
    assert out == ("", "")  # what serves has a terminal of its own to speak to


def test_a_long_value_keeps_its_beginning_and_its_end(file: Path, lines: Read) -> None:
    set_up_logging(file)
    log.info("long", text="begin" + "x" * 100_000 + "end")
    (line,) = lines()
    assert len(line) < 9000
    assert "begin" in line
    assert line.endswith('end"')


def test_only_the_owner_reads_the_file(file: Path) -> None:
    set_up_logging(file)
    log.info("x")
    assert oct(file.stat().st_mode & 0o777) == "0o600"


def test_the_file_is_rotated_by_size_and_old_ones_go(file: Path) -> None:
    set_up_logging(file)
    for _ in range(5):
        with file.open("ab") as end:
            end.truncate(_FILE_BYTES)
        set_up_logging(file)
        log.info("after")
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "modelgrid.log",
        "modelgrid.log.1",
        "modelgrid.log.2",
        "modelgrid.log.3",
    ]
    assert file.stat().st_size < _FILE_BYTES


def test_setting_up_again_replaces_what_was(file: Path, tmp_path: Path) -> None:
    set_up_logging(file)
    other = tmp_path / "other.log"
    set_up_logging(other)
    log.info("once")
    assert file.read_text() == ""
    assert len(other.read_text().splitlines()) == 1

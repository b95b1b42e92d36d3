"""One event, one line, in a file that is the process's own."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
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
    level, ours = root.level, logging.getLogger("modelgrid").level
    yield tmp_path / "logs/modelgrid.log"
    set_up_logging(None, console=False)
    for handler in [handler for handler in root.handlers if isinstance(handler, logging.NullHandler)]:
        root.removeHandler(handler)
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
    set_up_logging(file, console=False)
    log.info("replica.ready", replica="r1", model="a b", ms=12, s=0.123456789, why='said "no"\n', url=None, ok=True)
    log.warning("replica.failed", phases={"spawn": 1.5}, line="a\u2028b")
    log.debug("unheard")
    assert lines() == [
        'info replica.ready replica=r1 model="a b" ms=12 s=0.123457 why="said \\"no\\"\\n" url=null ok=true',
        'warning replica.failed phases={"spawn": 1.5} line="a\\u2028b"',
    ]


def test_json_has_the_same_fields(file: Path) -> None:
    set_up_logging(file, console=False, json=True)
    log.info("replica.ready", replica="r1", api_key="CANARY", why='token="CANARY"')
    (line,) = file.read_text().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "replica.ready",
        "level": "info",
        "replica": "r1",
        "api_key": "********",
        "why": 'token="********"',
    }


def test_other_libraries_are_heard_from_warnings_on(file: Path, lines: Read) -> None:
    set_up_logging(file, console=False)
    logging.getLogger("uvicorn.error").info("unheard")
    logging.getLogger("httpx").warning("no route to %s", "host")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    first, second = lines()
    assert first == 'warning httpx message="no route to host"'
    assert second.startswith("warning py.warnings message=")


def test_an_exception_is_part_of_its_line(file: Path, lines: Read) -> None:
    set_up_logging(file, console=False)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("step.failed", step=1)
    (line,) = lines()
    assert line.startswith('error step.failed step=1 exception="Traceback')
    assert "ValueError: two\\nlines" in line


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_comes_out_whichever_way_it_got_in(
    file: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    set_up_logging(file, console=True, json=as_json)
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
    for text in (file.read_text(), out.out, out.err):
        assert "CANARY" not in text


def test_a_long_value_keeps_its_beginning_and_its_end(file: Path, lines: Read) -> None:
    set_up_logging(file, console=False)
    log.info("long", text="begin" + "x" * 100_000 + "end")
    (line,) = lines()
    assert len(line) < 9000
    assert "begin" in line
    assert line.endswith('end"')


def test_only_the_owner_reads_the_file(file: Path) -> None:
    set_up_logging(file, console=False)
    log.info("x")
    assert oct(file.stat().st_mode & 0o777) == "0o600"


def test_the_file_is_rotated_by_size_and_old_ones_go(file: Path) -> None:
    set_up_logging(file, console=False)
    for _ in range(5):
        with file.open("ab") as end:
            end.truncate(_FILE_BYTES)
        set_up_logging(file, console=False)
        log.info("after")
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "modelgrid.log",
        "modelgrid.log.1",
        "modelgrid.log.2",
        "modelgrid.log.3",
    ]
    assert file.stat().st_size < _FILE_BYTES


def test_setting_up_again_replaces_what_was(file: Path, tmp_path: Path) -> None:
    set_up_logging(file, console=False)
    other = tmp_path / "other.log"
    set_up_logging(other, console=False)
    log.info("once")
    assert file.read_text() == ""
    assert len(other.read_text().splitlines()) == 1


def test_a_terminal_gets_colours_unless_it_wants_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for no_color, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        set_up_logging(None, console=True)
        log.info("replica.ready", token="CANARY")
        assert ("\x1b[" in terminal.getvalue()) == coloured
        assert "replica.ready" in terminal.getvalue()
        assert "CANARY" not in terminal.getvalue()


def test_nothing_is_said_where_nobody_listens(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    set_up_logging(None, console=False)
    log.info("x")
    logging.getLogger("httpx").error("y")
    assert capsys.readouterr() == ("", "")

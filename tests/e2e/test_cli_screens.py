"""What somebody sees who serves for the first time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until

COLUMNS = 80
KEPT: dict[str, Any] = {"scaling": {"min": 1}}


def pasted(line: str, **environ: str) -> int:
    """The status that the printed line gets, pasted into a shell."""
    done = subprocess.run(
        ["sh", "-c", f"{line} --silent --show-error --output /dev/null --noproxy '*' --write-out '%{{http_code}}'"],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def example(daemon: Daemon) -> str:
    """The curl line that `serve` prints, which is several lines on the screen."""
    found = until("a line to paste", lambda: re.search(r"^curl (.+\\\n)*.+$", daemon.output, re.MULTILINE))
    return found[0]


@pytest.mark.parametrize("name", ["a", 'it\'s: "mine"/é $HOME'])
def test_the_line_to_paste_works(make_daemon: MakeDaemon, name: str) -> None:
    daemon = make_daemon({name: faulty(**KEPT)}).start()
    line = example(daemon)
    assert pasted(line) == 200
    assert "-H 'Content-Type: application/json'" in line
    assert f"modelgrid serves {daemon.url}/v1" in daemon.output
    assert all(len(part) <= COLUMNS for part in line.splitlines()) or name != "a"


def test_the_line_to_paste_has_the_place_of_a_key_where_one_is_asked_for(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()})
    daemon.write(daemon.config)
    key = daemon.run("key", "create", "laptop").stdout.strip()
    line = example(daemon.start())
    assert pasted(line, KEY=key) == 200
    assert pasted(line, KEY="mg-wrong") == 401
    assert key not in daemon.output


def test_where_nothing_is_kept_loaded_it_says_what_a_request_would_start(make_daemon: MakeDaemon) -> None:
    far = {"engine": "remote", "url": "http://127.0.0.1:9/v1", "scaling": {"min": 1}, "start_timeout": "1s"}
    daemon = make_daemon({"far": far, "b": faulty(), "c": faulty()}).start()
    assert '"model":"b"' in example(daemon)  # what has failed is no example
    assert "started by their first request: b, c" in daemon.output
    assert "not ready after 1.0s (start_timeout): nothing listens at 127.0.0.1:9" in daemon.output


def test_a_failure_that_repeats_is_told_whole_once(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--exit-at-start", "3", **KEPT)}).start()
    until("it has failed three times", lambda: "failed 3 times in a row" in daemon.output)
    assert daemon.output.count("the last lines of its log:") == 1
    assert re.search(r"^unavailable  a: .*exited with code 3, as before \(next try in \d+s\)$", daemon.output, re.M)
    assert "curl" not in daemon.output  # there is nothing to ask


def test_steps_of_a_start_are_lines_where_no_spinner_turns(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--health-delay", "0.8", **KEPT)}).start()
    example(daemon)
    order = [daemon.output.index(told) for told in ("configuration: ", "  a: loading\n", "ready        a in ")]
    assert order == sorted(order)
    assert "\x1b" not in daemon.output


def test_who_closes_the_terminal_does_not_end_what_serves(make_daemon: MakeDaemon) -> None:
    reader, writer = os.pipe()
    daemon = make_daemon({"a": faulty("--start-delay", "0.5", **KEPT)})
    daemon.start(ready=False, to=writer)
    os.close(writer)
    assert os.read(reader, 10)
    os.close(reader)
    daemon.until_state("a", "ready")
    until("it wanted to say more", lambda: "ready" in daemon.run("status").stdout)
    assert daemon.chat("a").status_code == 200
    assert daemon.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(1)
    assert daemon.run("stop").returncode == 0
    assert daemon.process.wait(10) == 0
    assert daemon.processes() == []


class Terminal:
    """A terminal of 80 columns, and what was written to it."""

    def __init__(self) -> None:
        self._own, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self._written = b""

    def text(self) -> str:
        """All of it until now, without colours and moves of the cursor."""
        while select.select([self._own], [], [], 0)[0]:
            try:
                data = os.read(self._own, 65536)
            except OSError:  # nobody has it open any more
                break
            self._written += data
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._written.decode(errors="replace"))

    def until(self, what: str) -> str:
        """Wait until `what` is written."""
        return until(f"the terminal shows {what!r}", lambda: self.text() if what in self.text() else "")

    def close(self) -> None:
        for descriptor in (self._own, self.theirs):
            os.close(descriptor)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    made = Terminal()
    yield made
    made.close()


def test_on_a_terminal_news_and_the_spinner_keep_out_of_each_others_way(
    make_daemon: MakeDaemon, terminal: Terminal
) -> None:
    models = {"quick": faulty(**KEPT), "a-model-with-a-name-that-is-long": faulty("--health-delay", "1.5", **KEPT)}
    daemon = make_daemon({**models, "another-one-with-a-long-name": faulty("--health-delay", "1", **KEPT)})
    daemon.start(to=terminal.theirs)
    shown = terminal.until("curl ")
    lines = [part for line in shown.splitlines() for part in line.split("\r")]
    assert any("loading" in line for line in lines)  # the spinner
    assert not [line for line in lines if len(line) > COLUMNS and "configuration" not in line]
    for name in (*models, "another-one-with-a-long-name"):
        # How much it holds may be of a moment ago, when it held next to nothing.
        ready = re.compile(rf"ready        {name} in \S+(, [\d.]+ ([KM]i)?B)?")
        assert [line for line in lines if ready.fullmatch(line.rstrip())], shown

    daemon.supervisor().send_signal(signal.SIGINT)
    terminal.until("stopping: requests in flight may finish (a second Ctrl-C doesn't wait for them)")
    shown = terminal.until("modelgrid has stopped")
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0
    assert daemon.processes() == []
    assert "Traceback" not in shown


def test_the_first_interrupt_waits_for_requests_and_the_second_does_not(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--hang-after", "1", **KEPT)}, grace="60s").start()
    daemon.until_state("a", "ready")  # with its own first request
    with in_background(lambda: daemon.chat("a")):
        until("it is in flight", lambda: daemon.model("a").in_flight)
        daemon.supervisor().send_signal(signal.SIGINT)
        until("it stops", lambda: "stopping: requests in flight may finish" in daemon.output)
        assert daemon.process is not None
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.5)
        begun = time.monotonic()
        daemon.supervisor().send_signal(signal.SIGINT)
        assert daemon.process.wait(20) == 0
        assert time.monotonic() - begun < 15
    assert daemon.processes() == []


@contextlib.contextmanager
def in_background(ask: Callable[[], object]) -> Iterator[None]:
    """A caller that waits meanwhile, and may be cut off."""

    def run() -> None:
        with contextlib.suppress(httpx.HTTPError):
            ask()

    caller = threading.Thread(target=run)
    caller.start()
    yield
    caller.join(30)
    assert not caller.is_alive()


def test_a_newcomers_file_is_made_checked_and_shown(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({})
    daemon.home.mkdir()
    made = daemon.run("config", "init")
    assert made.returncode == 0, made.stderr
    assert "modelgrid.yaml" in made.stdout + made.stderr
    again = daemon.run("config", "init")
    assert again.returncode == 1  # and never over what somebody wrote
    checked = daemon.run("config", "check")
    assert checked.returncode == 0, checked.stderr
    shown = daemon.run("config", "show")
    assert shown.returncode == 0
    daemon.write(shown.stdout)
    assert daemon.run("config", "show").stdout == shown.stdout

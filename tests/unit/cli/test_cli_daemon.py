"""Commands that ask the daemon, run as processes against the real control API."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelgrid.api.fake import FakeControl
from modelgrid.config.paths import find_paths
from modelgrid.spec import Event, LogLines, ModelName, ModelStatus, ReplicaStatus, Wish
from modelgrid.spec.reason import Cause, Reason
from modelgrid.store import SqliteStore

Run = Callable[..., subprocess.CompletedProcess[str]]

DEADLINE_S = 30.0


def test_status_is_one_aligned_table(run: Run, control: FakeControl) -> None:
    done = run("status")
    assert done.stdout.splitlines() == [
        "http://127.0.0.1:9000  1 gateway worker, up 10m00s, /etc/modelgrid.yaml",
        "memory 1.0 of 4.0 GiB planned (measured)",
        "",
        "MODEL     ENGINE  STATE              MEMORY  IN FLIGHT  WAITING  USED/SINCE  WHY",
        "mine      custom  ready             1.0 GiB          2        0         now",
        "  mine-7          ready  512 MiB of 1.0 GiB          2                3m20s  answered its first request",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_status_as_json_is_the_whole_picture(run: Run, control: FakeControl) -> None:
    answer = json.loads(run("status", "--json").stdout)
    assert answer["running"] is True
    assert answer["memory_planned_bytes"] == 2**30
    assert answer["models"][0]["aliases"] == ["gpt-4o-mini"]


def test_where_there_are_gpus_each_replica_s_are_shown(
    run: Run, control: FakeControl, model: ModelStatus, replica: ReplicaStatus
) -> None:
    assert " ON " not in run("status").stdout
    on_gpus = replace(replica, devices=("gpu0", "gpu1", "cpu"))
    control.picture = replace(
        control.picture,
        models=(replace(model, memory_bytes=None, needs="2 GPUs"),),
        replicas=(on_gpus,),
        main_bytes=2**34,
        main_planned_bytes=2**32,
    )
    lines = [" ".join(line.split()) for line in run("status").stdout.splitlines()]
    assert lines[1] == "memory 1.0 of 4.0 GiB planned (measured), 4.0 of 16.0 GiB of main memory"
    assert lines[3] == "MODEL ENGINE STATE MEMORY ON IN FLIGHT WAITING USED/SINCE WHY"
    assert lines[4].startswith("mine custom ready 2 GPUs 2 0")
    assert lines[5].startswith("mine-7 ready 512 MiB of 1.0 GiB gpu0 gpu1 main 2 3m")


def test_a_configuration_that_cannot_be_used_is_in_plain_sight(run: Run, control: FakeControl) -> None:
    control.picture = replace(control.picture, config_error="modelgrid.yaml:7:13: no such engine\nand more")
    shown = run("status").stdout.splitlines()
    assert shown[2:5] == [
        "the configuration file differs from what is served:",
        "modelgrid.yaml:7:13: no such engine",
        "and more",
    ]


@pytest.mark.parametrize(
    "words", [["status"], ["why", "x"], ["logs", "x"], ["model", "load", "x"], ["model", "unload", "x"]]
)
def test_without_a_daemon_the_exit_code_is_three_and_the_next_step_is_told(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (3, "")
    assert "modelgrid is not running" in done.stderr
    assert "start it with: modelgrid serve" in done.stderr


def test_status_as_json_says_that_nothing_runs(run: Run) -> None:
    done = run("status", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["running"] is False


@pytest.mark.parametrize("words", [["why"], ["logs"], ["model", "load"], ["model", "unload"]])
def test_an_unknown_model_is_an_error_that_guesses(run: Run, control: FakeControl, words: list[str]) -> None:
    done = run(*words, "mien")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: cannot find model 'mien': there is no such model (did you mean 'mine'?)\n"


def test_why_tells_the_state_what_it_waits_for_and_what_happened(
    run: Run, control: FakeControl, store: SqliteStore, model: ModelStatus, replica: ReplicaStatus
) -> None:
    failed = replace(model, name="my model", state="failed", why="exited with code 1", retry_at=1042.0, waiting=1)
    control.show(failed, replicas=(replace(replica, id="m-2", model="my model", state="starting"),))
    store.record([Event(940.0, "my model", "m-1", "start", "a request waits"), Event(950.0, "else", None, "start", "")])
    store.record([Event(941.5, "my model", "m-1", "failed", "exited with code 1")])
    store.record([Event(950.0, "my model", "m-2", "start", "a request waits")])
    assert run("why", "my model").stdout.splitlines() == [
        "my model is failed: exited with code 1.",
        "  1 request waits for it.",
        "  It is tried again at 00:17:22, in 42 s.",
        "  What its engine wrote: modelgrid logs 'my model'",
        "",
        "What happened in the last hour. A replica is one running copy of the model.",
        "",
        "Replica m-1, which is gone",
        "  00:15:40  modelgrid started it: a request waits.",
        "  00:15:41  Its start failed after 1.5 s: exited with code 1.",
        "",
        "Replica m-2, starting for 3m20s, 2 in progress",
        "  00:15:50  modelgrid started it: a request waits.",
    ]


def test_why_of_a_while_tells_only_of_that_while(run: Run, control: FakeControl, store: SqliteStore) -> None:
    store.record([Event(700.0, "mine", None, "load", ""), Event(950.0, "mine", None, "unload", "")])
    assert "00:11:40  Somebody asked by hand that it be loaded" in run("why", "mine").stdout
    told = run("why", "mine", "--since", "2m").stdout
    assert "What happened in the last 2 min." in told
    assert ("be loaded" in told, "be unloaded" in told) == (False, True)
    assert "left out" in run("why", "mine", "-n", "1").stdout
    nothing = run("why", "mine", "--since", "1s").stdout.splitlines()[-1]
    assert nothing == "Nothing happened to it in the last 1 s (further back: modelgrid why mine --since 1d)."
    refused = run("why", "mine", "--since", "soon")
    assert (refused.returncode, "not a duration" in refused.stderr) == (2, True)


def test_why_without_a_model_is_an_account_of_all_with_the_newest_last(
    run: Run, control: FakeControl, store: SqliteStore
) -> None:
    assert run("why").stdout == "Nothing happened in the last hour (further back: modelgrid why --since 1d).\n"
    room = Reason(cause=Cause.ROOM, other="mine", waiting=2, waited_s=5.2)
    store.record([Event(940.0, "other", "other-1", "drain", "", room), Event(940.5, "other", "other-1", "gone", "")])
    store.record([Event(941.0, "mine", "mine-7", "start", "requests waited for it")])
    store.record([Event(950.0, "mine", "mine-7", "ready", "started")])
    assert run("why").stdout.splitlines() == [
        "What happened in the last hour:",
        "",
        "00:15:40  other  It was stopped, to make room for mine, for which 2 requests had waited up to 5.2 s.",
        "00:15:41  mine   It was started: requests waited for it. It was ready 9 s later.",
        "",
        "More of one: modelgrid why mine",
    ]
    data = json.loads(run("why", "--json").stdout)
    assert [event["what"] for event in data["events"]] == ["drain", "gone", "start", "ready"]
    assert data["events"][0]["reason"] == {"cause": "room", "other": "mine", "waiting": 2, "waited_s": 5.2}
    assert [line["model"] for line in data["story"]] == ["other", "mine"]


def test_a_virtual_model_is_shown_with_those_behind_it(run: Run, control: FakeControl, model: ModelStatus) -> None:
    other = replace(model, name="other", aliases=(), state="cold", why="no request has asked for it", in_flight=0)
    smart = replace(other, name="smart", engine="virtual", state="ready", why="mine is ready", behind=("other", "mine"))
    control.show(model, other, smart)
    shown = run("status").stdout.splitlines()[-1]
    assert shown.split() == ["smart", "virtual", "ready", "mine", "is", "ready"]
    assert run("why", "smart").stdout.splitlines() == [
        "smart is ready: mine is ready.",
        "  it is virtual: requests for it are served by the models behind it, in this order of preference",
        "",
        "      MODEL  STATE  IN FLIGHT  WAITING  WHY",
        "1     other  cold           0        0  no request has asked for it",
        "2     mine   ready          2        0",
        "",
        "what was done about one of them: modelgrid why other",
    ]
    refused = run("model", "load", "smart")
    assert refused.returncode == 1
    assert "cannot load smart: it is virtual" in refused.stderr


def test_why_as_json_has_the_same(run: Run, control: FakeControl, store: SqliteStore) -> None:
    store.record([Event(940.0, "mine", None, "start", "a request waits")])
    answer = json.loads(run("why", "gpt-4o-mini", "--json").stdout)
    assert answer["model"]["name"] == "mine"
    assert [event["why"] for event in answer["events"]] == ["a request waits"]
    assert answer["headline"] == "mine is ready: it answers requests (answered its first request)."
    assert answer["story"][0]["lines"][0]["text"] == "modelgrid started it: a request waits."


def test_what_an_engine_says_cannot_drive_the_terminal(run: Run, control: FakeControl, model: ModelStatus) -> None:
    control.show(replace(model, why="\x1b[2J\x1b]0;owned\x07[bold]really[/bold]\r"))
    shown = run("status").stdout + run("why", "mine").stdout
    assert not set(shown) & {"\x1b", "\x07", "\r"}
    assert "[bold]really[/bold]" in shown


def test_a_reason_of_many_lines_takes_one_row_and_is_whole_in_why(
    run: Run, control: FakeControl, store: SqliteStore, model: ModelStatus
) -> None:
    reason = "exited with code 1\nits last lines:\n  loading\n  MemoryError"
    control.show(replace(model, state="failed", why=reason))
    store.record([Event(940.0, "mine", "mine-7", "failed", reason)])
    assert run("status").stdout.splitlines()[-1].endswith("   now  exited with code 1 … MemoryError")
    told = run("why", "mine").stdout
    wrote = ["    its last lines:", "    loading", "    MemoryError"]
    assert told.splitlines()[:4] == ["mine is failed: exited with code 1.", *wrote]
    assert [line.strip() for line in told.splitlines()[-3:]] == [line.strip() for line in wrote]


def test_logs_are_printed_as_written_and_titled_where_there_are_several(run: Run, control: FakeControl) -> None:
    control.lines["mine"] = [LogLines("mine-1", ("a", "b"))]
    assert run("logs", "mine", "-n", "1").stdout == "b\n"
    control.lines["mine"].append(LogLines("mine-2", ("c",)))
    assert run("logs", "gpt-4o-mini").stdout == "==> mine-1 <==\na\nb\n==> mine-2 <==\nc\n"


def test_no_logs_is_said_beside_the_output(run: Run, control: FakeControl) -> None:
    control.lines["mine"] = []
    done = run("logs", "mine")
    assert (done.returncode, done.stdout) == (0, "")
    assert "mine has written nothing yet" in done.stderr


def test_logs_follow_what_is_written(control: FakeControl, environ: dict[str, str]) -> None:
    control.lines["mine"] = [LogLines("mine-1", ("one",))]
    words = [sys.executable, "-u", "-m", "modelgrid", "logs", "mine", "--follow"]
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "one\n"
        # The line above was read before the daemon was asked where to go on from: write until one arrives.
        heard: list[str] = []
        for number in range(200):
            control.lines["mine"] = [LogLines("mine-1", (*control.lines["mine"][0].lines, f"line {number}"))]
            if select.select([follower.stdout], [], [], 0.1)[0]:
                heard.append(follower.stdout.readline())
            if len(heard) == 3:
                break
        follower.send_signal(signal.SIGINT)
        assert follower.wait(DEADLINE_S) == 0
    numbers = [int(line.removeprefix("line ")) for line in heard]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_load_and_unload_are_wishes(run: Run, control: FakeControl, store: SqliteStore) -> None:
    done = run("model", "load", "gpt-4o-mini")
    assert (done.returncode, done.stdout) == (0, "mine is ready, and stays loaded\n")
    assert store.wishes() == {ModelName("mine"): Wish.LOADED}
    assert run("model", "unload", "mine").stdout.startswith("mine will be unloaded")
    assert store.wishes() == {ModelName("mine"): Wish.UNLOADED}
    assert control.wakes == 2


def test_load_waits_until_ready_and_tells_the_steps(
    run: Run, control: FakeControl, model: ModelStatus, replica: ReplicaStatus, environ: dict[str, str]
) -> None:
    control.show(
        replace(model, state="starting"),
        replicas=(replace(replica, state="starting", step="environment: 12 of 80"),),
    )
    words = [sys.executable, "-m", "modelgrid", "model", "load", "mine", "--wait"]
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr
        assert waiting.stdout
        assert waiting.stderr.readline() == "mine is starting: environment: 12 of 80\n"
        control.show(model, replicas=(replica,))
        assert waiting.stdout.read() == "mine is ready\n"
        assert waiting.wait(DEADLINE_S) == 0


def test_load_that_fails_says_why(run: Run, control: FakeControl, store: SqliteStore, model: ModelStatus) -> None:
    control.show(replace(model, state="failed", why="exited with code 1"))
    store.record([Event(1000.5, "mine", None, "failed", "exited with code 1")])
    done = run("model", "load", "mine", "--wait")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Error: cannot load mine: exited with code 1 (what it wrote: modelgrid logs mine)\n")


def test_load_that_takes_too_long_says_so(run: Run, control: FakeControl, model: ModelStatus) -> None:
    control.show(replace(model, state="starting"))
    done = run("model", "load", "mine", "--wait", "--timeout", "0")
    assert done.returncode == 1
    assert "cannot load mine: it is still starting after 0s (see: modelgrid why mine)" in done.stderr


class Terminal:
    """A command that runs on a terminal of 120 columns."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelgrid", *words],
            env={**environ, "COLUMNS": "120", "LINES": "40"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.written = b""

    def read(self, *, until: bytes | None = None) -> bytes:
        """What it writes up to and with `until`, else to its end."""
        deadline = time.monotonic() + DEADLINE_S
        while (until is None or until not in self.written) and time.monotonic() < deadline:
            try:
                self.written += os.read(self._master, 65536)
            except OSError:  # the terminal's last user has left
                break
        return self.written

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(environ: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*words: str, **more: str) -> Terminal:
        opened.append(Terminal(list(words), {**environ, **more}))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        terminal.close()


def test_on_a_terminal_states_are_coloured_and_memory_is_drawn(
    control: FakeControl, terminal: Callable[..., Terminal]
) -> None:
    written = terminal("status").read()
    assert b"\x1b[32mready\x1b[0m" in written
    assert "━".encode() in written


def test_no_color_is_respected(control: FakeControl, terminal: Callable[..., Terminal]) -> None:
    written = terminal("status", NO_COLOR="1").read()
    assert b"mine-7" in written
    assert b"\x1b[3" not in written


def test_watch_follows_the_daemon_until_interrupted(
    control: FakeControl, terminal: Callable[..., Terminal], model: ModelStatus
) -> None:
    watching = terminal("status", "--watch")
    assert b"first request" in watching.read(until=b"first request")
    control.show(replace(model, why="something new"))
    assert b"something new" in watching.read(until=b"something new")
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(DEADLINE_S) == 0
    assert b"Traceback" not in watching.read()


def test_the_configuration_in_force_is_the_daemons(run: Run, control: FakeControl) -> None:
    control.yaml = "models:\n  mine: {key: '********'}\n"
    assert run("config", "show", "--running").stdout == control.yaml


def test_the_next_step_can_be_pasted(run: Run, control: FakeControl, store: SqliteStore, model: ModelStatus) -> None:
    control.show(replace(model, name="a b; rm", state="failed", why="x"))
    store.record([Event(940.0, "a b; rm", "a-b-rm-1", "failed", "x")])
    assert "modelgrid logs 'a b; rm'" in run("why", "a b; rm").stdout


@pytest.mark.parametrize("words", [["status"], ["stop"], ["key", "list"], ["serve"]])
def test_no_command_uses_a_folder_that_somebody_else_could_have_made(
    run: Run, tmp_path: Path, words: list[str]
) -> None:
    deep = tmp_path / ("x" * 120)
    stand_in = find_paths({"MODELGRID_HOME": str(deep)}).run
    stand_in.parent.mkdir(exist_ok=True, mode=0o700)
    stand_in.symlink_to(tmp_path)
    try:
        done = run(*words, MODELGRID_HOME=str(deep))
    finally:
        stand_in.unlink()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: cannot use {stand_in}: it is not a folder that belongs to this user alone")

"""However modelgrid ends, and whatever is left of it: streams get their grace, and then no process is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.traffic import Stream, ask

STUBBORN = ("--refuse-stop", "--spawn-child")


def _ready(daemon: Daemon, *models: str) -> Daemon:
    daemon.start()
    with daemon.client() as client:
        for model in models:
            assert ask(client, model).is_served
    return daemon


def _terminate(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)


def _code(daemon: Daemon, within_s: float) -> int:
    assert daemon.process is not None
    return daemon.process.wait(within_s)


def _streaming(daemon: Daemon, model: str = "a") -> Stream:
    stream = Stream(daemon, model)
    until("it streams", lambda: stream.has_begun)
    return stream


def test_sigterm_lets_streams_finish_and_leaves_no_process(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty("--chunks", "30", "--chunk-delay", "0.05", "--spawn-child"), "b": faulty()}
    daemon = _ready(make_daemon(models, workers=2), "a", "b")
    streams = [_streaming(daemon) for _ in range(3)]
    _terminate(daemon)
    assert all(stream.result().is_served for stream in streams)
    assert _code(daemon, 10) == 0
    assert daemon.processes() == []


def test_a_stream_longer_than_the_grace_time_is_cut_and_told_so(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty("--chunks", "1000", "--chunk-delay", "0.05")}
    daemon = _ready(make_daemon(models, grace="1s"))
    stream = _streaming(daemon)
    told = time.monotonic()
    _terminate(daemon)
    reply = stream.result()
    assert 0.9 < reply.ended - told < 4
    assert reply.error is not None
    assert "stopping" in reply.error["message"]
    assert _code(daemon, 15) == 0
    assert daemon.processes() == []


def test_an_engine_that_refuses_to_stop_is_forced_after_its_grace_time(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon({"a": faulty(*STUBBORN, stop_grace="1s")}), "a")
    assert len(daemon.engines()) == 2
    told = time.monotonic()
    _terminate(daemon)
    assert _code(daemon, 10) == 0
    assert time.monotonic() - told >= 1.0
    assert daemon.processes() == []


def test_a_second_sigterm_hurries(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty("--chunks", "1000", "--chunk-delay", "0.1")}
    daemon = _ready(make_daemon(models, grace="60s"))
    stream = _streaming(daemon)
    _terminate(daemon)
    until("the workers take nothing new", lambda: _is_refused(daemon))
    assert not stream.is_over
    _terminate(daemon)
    assert _code(daemon, 15) == 0
    assert not stream.result(5).is_served
    assert daemon.processes() == []


def test_sigterm_while_a_model_starts_leaves_no_process(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--start-delay", "60", scaling={"min": 1})}).start()
    until("its engine is there", daemon.engines)
    _terminate(daemon)
    assert _code(daemon, 15) == 0
    assert daemon.processes() == []


@pytest.mark.parametrize("moment", ["nobody", "young", "later"])
def test_sigterm_after_a_controller_was_killed_leaves_no_process(make_daemon: MakeDaemon, moment: str) -> None:
    daemon = _ready(make_daemon({"a": faulty(*STUBBORN, stop_grace="0.5s")}), "a")
    old = daemon.controllers()[0]
    old.kill()
    if moment != "nobody":  # one that begins to run can't listen to signals yet
        young = until("there is another", lambda: [process for process in daemon.controllers() if process != old])
        if moment == "later":
            until("it loads what it needs", lambda: young[0].cpu_times().user > 0.2)
    _terminate(daemon)
    assert _code(daemon, 15) == 0
    assert daemon.processes() == []


# What a daemon that was killed has left.


def test_stop_ends_what_a_killed_daemon_has_left(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty("--spawn-child"), "b": faulty()}
    daemon = _ready(make_daemon(models, workers=2), "a", "b")
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    assert len(daemon.processes()) == 6
    stopped = daemon.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert daemon.processes() == []


def test_stop_ends_engines_that_refuse_when_nothing_else_is_left(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty(*STUBBORN), "b": faulty("--spawn-child")}
    daemon = _ready(make_daemon(models, grace="1s"), "a", "b")
    _kill_all_but_engines(daemon)
    assert len(daemon.engines()) == 4
    stopped = daemon.run("stop", "--grace", "1s")
    assert stopped.returncode == 0, stopped.stderr
    assert daemon.processes() == []


def test_stop_ends_the_child_of_an_engine_that_was_killed(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon({"a": faulty("--spawn-child")}), "a")
    _kill_all_but_engines(daemon)
    min(daemon.engines(), key=lambda process: process.create_time()).kill()
    until("its child is what is left", lambda: len(daemon.engines()) == 1)
    assert daemon.run("stop").returncode == 0
    assert daemon.processes() == []


def test_serve_adopts_the_engines_of_a_daemon_of_which_nothing_else_is_left(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon({"a": faulty("--spawn-child"), "b": faulty()}), "a", "b")
    before = {process.pid for process in daemon.engines()}
    _kill_all_but_engines(daemon)
    daemon.start()
    daemon.until_state("a", "ready")
    daemon.until_state("b", "ready")
    assert {process.pid for process in daemon.engines()} == before
    _terminate(daemon)
    assert _code(daemon, 15) == 0
    assert daemon.processes() == []


# After a reboot: files of before, processes of others.


@pytest.fixture
def bystander() -> Iterator[psutil.Process]:
    """A process of somebody else's, which leads a session as engines do."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command, start_new_session=True) as process:
        yield psutil.Process(process.pid)
        process.kill()


@pytest.mark.parametrize("same", ["boot", "start"])
def test_files_of_before_a_reboot_and_used_again_pids_do_no_harm(
    make_daemon: MakeDaemon, bystander: psutil.Process, same: str
) -> None:
    daemon = _ready(make_daemon({"a": faulty()}), "a")
    assert daemon.process is not None
    everything = [*daemon.processes(), daemon.supervisor()]
    for process in everything:  # all at once, as when the power fails
        process.suspend()
    for process in everything:
        process.kill()
    daemon.process.wait()
    until("all are gone", lambda: not daemon.processes())
    _give_pid_of_record_to(bystander, daemon, same)
    daemon.start()
    answer = daemon.chat("a")
    assert answer.status_code == 200, answer.text
    assert len(daemon.engines()) == 1
    assert daemon.run("stop").returncode == 0
    assert daemon.processes() == []
    assert bystander.status() == psutil.STATUS_SLEEPING  # though its pid was an engine's


def _give_pid_of_record_to(process: psutil.Process, daemon: Daemon, same: str) -> None:
    """As if `process` had got the pid of an engine of before: in this boot, or in another one at the very same tick."""
    (path,) = (daemon.home / "state" / "replicas").glob("*.json")
    record = json.loads(path.read_text())
    record["pid"] = process.pid
    if same == "start":
        record["boot"] = "00000000-0000-0000-0000-000000000000"
        record["started"] = int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    path.write_text(json.dumps(record))


def _kill_all_but_engines(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    for process in (*daemon.controllers(), *daemon.workers()):
        process.kill()
    until("they are gone", lambda: not daemon.controllers() and not daemon.workers())


def _is_refused(daemon: Daemon) -> bool:
    try:
        with daemon.client() as client:
            client.get("/health")
    except httpx.HTTPError:
        return True
    return False

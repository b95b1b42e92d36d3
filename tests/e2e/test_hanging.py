"""What hangs, can't start or can't be seen: an end still has an end, and somebody is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from modelgrid.config import Config
from modelgrid.config.paths import find_paths
from modelgrid.daemon.stopping import stop_everything

STUBBORN = faulty("--refuse-stop", "--spawn-child", stop_grace="0.5s")

MUTE = """
import asyncio, os, signal, sys
from modelgrid.config import Config, GatewayConfig
from modelgrid.config.paths import find_paths
from modelgrid.daemon.supervisor import Plan, supervise

async def announce(stopping, deaths):
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGTERM)
    raise RuntimeError("nothing can be said")

config = Config(gateway=GatewayConfig(port=int(sys.argv[1]), grace_s=1.0))
supervise(find_paths(), Plan(config, None, {"gateway.port": sys.argv[1]}, hub=False), announce)
print("ended well")
"""


def terminate(daemon: Daemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)


def says(daemon: Daemon, line: str) -> bool:
    return line in daemon.output


def ready(daemon: Daemon) -> Daemon:
    daemon.start()
    assert daemon.chat("a").status_code == 200
    return daemon


@pytest.mark.parametrize(("signals", "within_s"), [(2, 15), (1, 30)])
def test_a_controller_that_hangs_is_killed_and_its_engines_end(
    make_daemon: MakeDaemon, signals: int, within_s: float
) -> None:
    daemon = ready(make_daemon({"a": STUBBORN}))
    daemon.controllers()[0].suspend()
    terminate(daemon)
    if signals == 2:
        until("its workers have ended", lambda: not daemon.workers())
        terminate(daemon)
    assert daemon.process is not None
    assert daemon.process.wait(within_s) == 0
    assert daemon.processes() == []


def test_engines_that_are_left_are_told_and_no_clean_end_is_claimed(make_daemon: MakeDaemon) -> None:
    daemon = ready(make_daemon({"a": faulty()}))
    daemon.controllers()[0].suspend()
    unreadable = daemon.home / "state" / "replicas" / "odd.json"
    unreadable.mkdir()
    terminate(daemon)
    until("its workers have ended", lambda: not daemon.workers())
    terminate(daemon)
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    assert "Error: cannot see what runs: " in daemon.output
    assert "(try: modelgrid stop)" in daemon.output
    assert "modelgrid has stopped" not in daemon.output
    assert len(daemon.engines()) == 1
    unreadable.rmdir()
    assert daemon.run("stop").returncode == 0
    assert daemon.processes() == []


def test_stop_ends_a_supervisor_that_hangs_and_all_that_it_started(make_daemon: MakeDaemon) -> None:
    daemon = ready(make_daemon({"a": STUBBORN}, grace="3s"))
    daemon.supervisor().suspend()
    told: list[str] = []
    paths = find_paths({"MODELGRID_HOME": str(daemon.home)})
    stopped = stop_everything(paths, Config(), grace_s=1.0, tell=told.append, limit_s=0.5)
    assert (stopped.daemon, stopped.processes) == (True, 2)
    assert "requests in flight may take 3.0s" in told[0]  # as its own configuration says
    assert f"process {daemon.supervisor().pid} has not ended in 500ms: it is killed" in told[1]
    assert daemon.processes() == []


def test_a_controller_that_cannot_start_is_told_by_serve_and_by_status(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()})
    (daemon.home / "run" / "controller.lock").mkdir(parents=True)
    daemon.start(ready=False)
    log = daemon.home / "state" / "logs" / "modelgrid.log"
    for again in ("at once", "in 200ms", "in 500ms"):
        line = f"controller died (exited with code 1), again {again}; see {log}"
        until("serve tells it", partial(says, daemon, line))
    asked = daemon.run("status")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert f"it runs (process {daemon.supervisor().pid}), but its controller doesn't answer" in asked.stderr
    assert "not running" not in asked.stderr
    terminate(daemon)
    assert daemon.process is not None
    assert daemon.process.wait(15) == 0
    assert daemon.processes() == []


def test_what_breaks_while_it_is_told_does_not_end_what_serves(make_daemon: MakeDaemon) -> None:
    port = make_daemon({}).port
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", MUTE, str(port)],
            env={**os.environ, "MODELGRID_HOME": home},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout.endswith("ended well\n"), done.stderr


def test_who_makes_an_environment_and_was_left_is_ended(tmp_path: Path) -> None:
    """Its mark is its own: it is no controller, which is what started it."""
    paths = find_paths({"MODELGRID_HOME": str(tmp_path)})
    marks = {"MODELGRID_INSTANCE": str(paths.state), "MODELGRID_ROLE": "environment"}
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **marks}) as left:
        until("it runs", lambda: psutil.Process(left.pid).environ().get("MODELGRID_ROLE") == "environment")
        stopped = stop_everything(paths, Config(), grace_s=0.0, tell=lambda _: None)
        assert (stopped.daemon, stopped.processes, stopped.replicas) == (False, 1, 0)
        assert left.wait(5) == -signal.SIGKILL

"""Where the time of a start goes: the log tells each phase, and nothing of the whole is missing."""

from __future__ import annotations

import re
import time

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until

PHASES = ("queued", "weights", "environment", "spawn", "load", "first_request")


def _ready_lines(daemon: Daemon, model: str) -> list[str]:
    lines = daemon.log().splitlines()
    return [line for line in lines if "replica.ready" in line and re.search(rf"model\W+{model}\b", line)]


def _phases_ms(line: str) -> dict[str, int]:
    return {name: int(text) for name, text in re.findall(r"\b([a-z_]+)_ms\W+(\d+)", line)}


def test_the_phases_of_a_cold_start_add_up_to_what_the_caller_waited(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--start-delay", "0.5", "--delay", "0.3")}).start()
    asked = time.monotonic()
    assert daemon.chat("a").status_code == 200
    waited_ms = (time.monotonic() - asked) * 1000
    (line,) = _ready_lines(daemon, "a")
    phases = _phases_ms(line)
    assert set(phases) == set(PHASES) - {"environment"}  # a plain command needs none
    assert phases["load"] >= 500
    assert phases["first_request"] >= 300
    # The caller's own request takes 300 ms of its own, and each of five figures is rounded.
    assert waited_ms - 300 + 5 > sum(phases.values()) > 800
    assert waited_ms - 300 - sum(phases.values()) < 2000  # what is outside of the phases: the way there and back
    (replica,) = daemon.replicas("a")
    assert {name: round(seconds * 1000) for name, seconds in replica.phases.items()} == phases


def test_the_wait_for_another_models_end_is_in_the_queued_phase(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty("--stop-delay", "0.6"), "b": faulty()}
    daemon = make_daemon(models, memory="150MiB").start()
    assert daemon.chat("a").status_code == 200
    assert daemon.chat("b").status_code == 200
    (line,) = _ready_lines(daemon, "b")
    assert _phases_ms(line)["queued"] >= 600


def test_an_engine_of_a_killed_controller_is_not_told_of_as_started_twice(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--start-delay", "3")}).start()
    with daemon.control() as client:
        client.load("a")
    until("its engine is there", daemon.engines)
    (before,) = daemon.engines()
    daemon.controllers()[0].kill()
    daemon.until_state("a", "ready")
    (after,) = daemon.engines()
    assert after == before
    assert len(_ready_lines(daemon, "a")) == 1
    assert "spawn" not in _phases_ms(_ready_lines(daemon, "a")[0])  # nobody saw it: nothing is made up

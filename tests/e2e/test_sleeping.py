"""Models that can sleep take turns, each loaded once; whatever goes wrong as they turn, requests are served."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import LOOPBACK, Daemon, faulty, until
from modelgrid.client import ControlError, NotRunning
from modelgrid.spec import ReplicaStatus

MIB = 1 << 20
BUDGET = "300MiB"  # for one awake, and one asleep
AWAKE, EATEN, BARE = "200MiB", "150MiB", 70 * MIB


def sleeper(*arguments: str, **more: Any) -> dict[str, Any]:
    """One that is woken sooner than it is loaded: else it would be stopped."""
    slow = ("--start-delay", "1.2")
    return faulty("--sleepable", "--eat-memory", EATEN, *slow, *arguments, memory=AWAKE, sleep=1, **more)


def ask(daemon: Daemon, model: str) -> None:
    answer = daemon.chat(model)
    assert answer.status_code == 200, answer.text


def only(daemon: Daemon, model: str) -> ReplicaStatus:
    (replica,) = daemon.replicas(model)
    return replica


def pid_of(daemon: Daemon, model: str) -> int:
    pid = only(daemon, model).pid
    assert pid is not None
    return pid


def rest(daemon: Daemon, model: str, state: str = "asleep") -> ReplicaStatus:
    """Wait until the model's replica is there and does not turn."""

    def look() -> ReplicaStatus | None:
        with contextlib.suppress(NotRunning, ControlError):
            return next((r for r in daemon.replicas(model) if r.state == state and r.step is None), None)
        return None

    return until(f"{model} is {state}", look)


def count(daemon: Daemon, model: str, what: str) -> int:
    return sum(event.what == what for event in daemon.events(model))


def told(daemon: Daemon, model: str) -> dict[str, Any]:
    """What the test engine of a model, which is awake, says of itself."""
    url = only(daemon, model).url
    assert url is not None
    with daemon.client() as client:
        found: dict[str, Any] = client.get(f"{url.removesuffix('/v1')}/faulty/requests").json()
    return found


def test_models_take_turns_in_their_memory_and_none_is_loaded_twice(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": sleeper(), "b": sleeper()}, memory=BUDGET).start()
    ask(daemon, "a")
    first = pid_of(daemon, "a")
    ask(daemon, "b")
    second = pid_of(daemon, "b")
    for other, model in [("b", "a"), ("a", "b")] * 3:
        ask(daemon, model)
        assert rest(daemon, model, "ready").pid == (first if model == "a" else second)
        assert rest(daemon, other).pid == (second if model == "a" else first)
        pids = {"a": first, "b": second}
        assert psutil.Process(pids[other]).memory_info().rss < BARE
        assert psutil.Process(pids[model]).memory_info().rss > 150 * MIB
        assert daemon.status().memory_planned_bytes <= 300 * MIB
    for model in ("a", "b"):
        assert count(daemon, model, "start") == 1
        assert count(daemon, model, "asleep") >= 3
        assert count(daemon, model, "wake") >= 3
    assert told(daemon, "b")["asked_asleep"] == 0
    with daemon.client() as client:
        page = client.get("/metrics").text
    assert 'modelgrid_model_state{model="a",state="asleep"} 1.0' in page
    assert 'modelgrid_wake_seconds_count{model="b"} 3.0' in page
    assert daemon.model("a").state == "asleep"
    assert "asleep" in daemon.run("status").stdout
    assert "sleep" in daemon.run("why", "a").stdout
    assert daemon.run("stop").returncode == 0
    assert daemon.processes() == []


@pytest.mark.parametrize("fault", ["hang", "lie"])
def test_a_sleep_that_fails_costs_no_request(make_daemon: MakeDaemon, fault: str) -> None:
    bad = sleeper("--sleep-fault", fault, "--sleep-faults", "1", start_timeout="8s", stop_grace="1s")
    daemon = make_daemon({"a": bad, "b": sleeper()}, memory=BUDGET).start()
    for model in ("a", "b", "a", "b"):
        ask(daemon, model)
        assert daemon.status().memory_planned_bytes <= 300 * MIB
    assert count(daemon, "a", "start") == 2


@pytest.mark.parametrize("fault", ["error", "lose", "die"])
def test_a_waking_that_fails_costs_no_request(make_daemon: MakeDaemon, fault: str) -> None:
    bad = sleeper("--wake-fault", fault, "--sleep-faults", "1", start_timeout="8s", stop_grace="1s")
    daemon = make_daemon({"a": bad, "b": sleeper()}, memory=BUDGET).start()
    for model in ("a", "b", "a", "b"):
        ask(daemon, model)
    assert count(daemon, "a", "start") == (1 if fault == "lose" else 2)


def test_what_sleeps_outlives_the_controller_and_is_started_anew_where_it_dies(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": sleeper(), "b": sleeper()}, memory=BUDGET).start()
    ask(daemon, "a")
    ask(daemon, "b")
    sleeping = rest(daemon, "a")
    _kill_controller(daemon)
    assert rest(daemon, "a").pid == sleeping.pid
    ask(daemon, "a")
    assert pid_of(daemon, "a") == sleeping.pid
    assert count(daemon, "a", "start") == 1
    psutil.Process(rest(daemon, "b").pid).kill()
    ask(daemon, "b")
    assert count(daemon, "b", "start") == 2


@pytest.mark.parametrize(("argument", "step"), [("--sleep-delay", "falling asleep"), ("--wake-delay", "waking")])
def test_a_controller_that_is_killed_while_one_turns_ends_the_turn(
    make_daemon: MakeDaemon, argument: str, step: str
) -> None:
    daemon = make_daemon({"a": sleeper(argument, "3"), "b": sleeper()}, memory=BUDGET).start()
    ask(daemon, "a")
    first = pid_of(daemon, "a")
    if step == "waking":
        ask(daemon, "b")
        rest(daemon, "a")
    with ThreadPoolExecutor(1) as callers:
        answer = callers.submit(daemon.chat, "a" if step == "waking" else "b")
        until(f"a is {step}", lambda: daemon.replicas("a")[0].step == step)
        _kill_controller(daemon)
        assert answer.result(60).status_code == 200
    ask(daemon, "a")
    assert pid_of(daemon, "a") == first
    assert [count(daemon, model, "start") for model in ("a", "b")] == [1, 1]


def test_one_that_sleeps_is_stopped_by_an_unload_and_with_its_model(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": sleeper(), "b": sleeper()}, memory=BUDGET).start()
    ask(daemon, "a")
    ask(daemon, "b")
    rest(daemon, "a")
    assert daemon.run("model", "unload", "a").returncode == 0
    until("a is gone", lambda: not daemon.replicas("a"))
    ask(daemon, "a")
    rest(daemon, "b")
    del daemon.config["models"]["b"]
    daemon.write(daemon.config)
    until("b is gone", lambda: not daemon.replicas("b"))
    assert len(daemon.engines()) == 1


TARGETS = (
    "/sleep?level=1",
    "/wake_up",
    "/collective_rpc",
    "/v1/sleep",
    "//sleep",
    "/v1/chat/completions/../../sleep",
    "/v1/../sleep",
    "/v1/%2e%2e/sleep",
    "/%73leep",
    "/v1/responses/../../sleep",
    "/v1/responses/%2e%2e%2f%2e%2e%2fsleep/cancel",
    "/v1/videos/..%2f..%2fsleep/remix",
    "http://127.0.0.1/sleep",
)


def test_no_caller_can_put_an_engine_to_sleep(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": sleeper(scaling={"min": 1})}).start()
    daemon.until_state("a", "ready")
    body = b'{"model": "a", "method": "reload_weights"}'
    for target in TARGETS:
        with socket.create_connection((LOOPBACK, daemon.port), timeout=20) as caller:
            head = f"POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            caller.sendall(head.encode() + body)
            status = caller.recv(64).split(b" ")[1]
            assert int(status) >= 400, (target, status)
    ask(daemon, "a")
    seen = told(daemon, "a")
    assert (seen["slept"], seen["asked_asleep"]) == (0, 0)
    assert not [request["path"] for request in seen["requests"] if "sleep" in request["path"].split("/")[1]]


def _kill_controller(daemon: Daemon) -> None:
    (controller,) = daemon.controllers()
    controller.kill()
    until("another controller is there", lambda: [c.pid for c in daemon.controllers() if c.pid != controller.pid])

"""When a part dies, callers hear of it as little as can be, and everything comes back by itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence

import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.traffic import Crowd, Reply, Stream, ask, failed
from modelgrid.client import ControlError, NotRunning

# A death of an engine, and what callers may notice of it.


@pytest.mark.parametrize("replicas", [1, 2])
def test_killed_engines_fail_no_request_that_had_received_nothing(make_daemon: MakeDaemon, replicas: int) -> None:
    model = faulty("--delay", "0.05", "--chunk-delay", "0.02", scaling={"min": replicas})
    daemon = make_daemon({"a": model}).start()
    until("all replicas are ready", lambda: len(_pids(daemon, "a")) == replicas)
    killed = []
    with Crowd(daemon, ["a"], callers=6) as crowd:
        for _ in range(2):  # of a third death in a row callers are told, instead of being kept waiting
            _until_more_are_served(crowd)
            pid = next(iter(_pids(daemon, "a").values()))
            killed.append(pid)
            _kill(pid)
            _until_replaced(daemon, pid, replicas)
        _until_more_are_served(crowd)
    assert len(set(killed)) == 2
    _assert_told(failed(crowd.replies))
    deaths = [event for event in daemon.events("a") if event.what == "failed"]
    starts = [event for event in daemon.events("a") if event.what == "start"][replicas:]
    assert ["SIGKILL" in death.why for death in deaths] == [True, True]
    pauses_s = [start.at - death.at for death, start in zip(deaths, starts, strict=True)]
    assert pauses_s[0] >= 1.0
    assert pauses_s[1] >= 2.0


def test_a_stream_whose_engine_dies_ends_with_an_error_event(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--crash-mid-stream", "2")}).start()
    with daemon.client() as client:
        reply = ask(client, "a", stream=True)
    assert len(reply.events) == 3, reply
    assert reply.error is not None
    assert not reply.is_done
    assert "early" in reply.error["message"]


def test_an_engine_that_hangs_is_found_and_replaced(make_daemon: MakeDaemon) -> None:
    # The first request makes it ready, the second is answered, from the third on it hangs, its health check too.
    daemon = make_daemon({"a": faulty("--hang-after", "2", "--hang-health", health_timeout="5s")}).start()
    with daemon.client() as client:
        first = ask(client, "a")
        second = ask(client, "a")  # hangs, until the replacement answers it: nothing had been received
    assert first.is_served, first
    assert second.is_served, second
    assert first.pid != second.pid
    (death,) = [event for event in daemon.events("a") if event.what == "failed"]
    assert "health check" in death.why


# The controller.


@pytest.fixture
def streaming(make_daemon: MakeDaemon) -> tuple[Daemon, Stream]:
    """A daemon of two workers and two models, and a stream of some ten seconds."""
    models = {
        "a": faulty("--chunks", "150", "--chunk-delay", "0.05", scaling={"max": 2, "min": 2}),
        "b": faulty("--delay", "0.02"),
    }
    daemon = make_daemon(models, workers=2).start()
    with daemon.client() as client:
        assert ask(client, "b").is_served
    until("two replicas of a are ready", lambda: len(_pids(daemon, "a")) == 2)
    stream = Stream(daemon, "a")
    until("it streams", lambda: stream.has_begun)
    return daemon, stream


def test_a_killed_controller_is_not_missed_and_its_engines_are_adopted(streaming: tuple[Daemon, Stream]) -> None:
    daemon, stream = streaming
    engines = _every_pid(daemon)
    with Crowd(daemon, ["b"], callers=3) as crowd:
        _until_more_are_served(crowd)
        for _ in range(2):
            (controller,) = daemon.controllers()
            controller.kill()
            _until_more_are_served(crowd)
            until("another controller has adopted all", lambda: _every_pid(daemon) == engines)
        _until_more_are_served(crowd)
    assert failed(crowd.replies) == []
    assert stream.result().is_served, stream.reply
    assert _every_pid(daemon) == engines
    for model, replicas in (("a", 2), ("b", 1)):
        assert len([event for event in daemon.events(model) if event.what == "start"]) == replicas


def test_requests_are_served_and_a_killed_worker_replaced_while_the_controller_is_away(
    streaming: tuple[Daemon, Stream],
) -> None:
    daemon, stream = streaming
    engines = _every_pid(daemon)
    (controller,) = daemon.controllers()
    controller.suspend()  # it is there, and does nothing: for as long as it takes
    try:
        with daemon.client() as client:
            assert ask(client, "b").is_served
        victim = next(worker for worker in daemon.workers() if _name(worker) != stream.reply.worker)
        victim.kill()
        until("a worker has taken its place", lambda: len(daemon.workers()) == 2 and victim not in daemon.workers())
        for _ in range(20):  # connections come to both workers by chance
            with daemon.client() as client:
                assert ask(client, "b").is_served
    finally:
        controller.resume()
    until("the controller knows both workers", lambda: daemon.status().workers == 2)
    assert stream.result().is_served, stream.reply
    assert _every_pid(daemon) == engines


# Gateway workers.


def test_a_killed_worker_is_back_within_a_second_and_the_other_unaffected(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--chunks", "60", "--chunk-delay", "0.05")}, workers=2).start()
    assert daemon.chat("a").status_code == 200
    streams = [Stream(daemon, "a") for _ in range(8)]
    until("all stream", lambda: all(stream.has_begun for stream in streams))
    names = {stream.reply.worker for stream in streams}
    victim = next(worker for worker in daemon.workers() if _name(worker) in names)
    name = _name(victim)
    victim.kill()
    until("it is back", lambda: _name_of_new(daemon, name, victim), 1.5)  # one second, and the look itself
    with daemon.client() as client:
        assert ask(client, "a").is_served
    for stream in streams:
        assert stream.result().is_served == (stream.reply.worker != name), stream.reply


def test_the_only_worker_killed_leaves_the_port_open_and_callers_waiting(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()}).start()
    assert daemon.chat("a").status_code == 200
    for _ in range(2):
        (worker,) = daemon.workers()
        worker.kill()
        assert daemon.chat("a").status_code == 200  # connects at once, is answered by the next worker
    assert len(daemon.workers()) == 1


def test_what_a_killed_worker_had_in_flight_is_not_counted_for_ever(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--chunks", "200", "--chunk-delay", "0.1", scaling={"idle": "1s"})}).start()
    stream = Stream(daemon, "a")
    until("it streams", lambda: stream.has_begun)
    until("it is counted", lambda: daemon.model("a").in_flight == 1)
    daemon.workers()[0].kill()
    assert not stream.result().is_served
    daemon.until_state("a", "cold")  # idle, as nobody is left who asked


# Several at once.


def test_a_controller_and_a_worker_that_die_together_come_back(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()}).start()
    assert daemon.chat("a").status_code == 200
    engines = _every_pid(daemon)
    for process in (*daemon.controllers(), *daemon.workers()):
        process.kill()
    assert daemon.chat("a").status_code == 200
    until("the engine is adopted", lambda: _every_pid(daemon) == engines)
    assert len(daemon.workers()) == len(daemon.controllers()) == 1


def test_a_killed_supervisor_is_not_missed_and_the_next_serve_takes_over(streaming: tuple[Daemon, Stream]) -> None:
    daemon, stream = streaming
    engines = _every_pid(daemon)
    others = {*daemon.controllers(), *daemon.workers()}
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    with daemon.client() as client:
        assert ask(client, "b").is_served  # served by the workers that are left
    daemon.start()
    until("the engines are adopted", lambda: _every_pid(daemon) == engines)
    with daemon.client() as client:
        assert ask(client, "b").is_served
    assert stream.result().is_served, stream.reply  # the worker of before finished it
    until("those of before are gone", lambda: not any(process.is_running() for process in others))
    assert len(daemon.controllers()) == 1
    assert len(daemon.workers()) == 2


def _pids(daemon: Daemon, model: str) -> dict[str, int]:
    """The replicas of `model` that serve."""
    return {replica.id: replica.pid for replica in daemon.replicas(model) if replica.pid and replica.state == "ready"}


def _every_pid(daemon: Daemon) -> dict[str, int]:
    """The same of all models; empty while nobody can be asked."""
    with contextlib.suppress(NotRunning, ControlError):
        return {replica.id: replica.pid for replica in daemon.replicas() if replica.pid and replica.state == "ready"}
    return {}


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _until_more_are_served(crowd: Crowd) -> None:
    before = crowd.served()
    until("more are served", lambda: crowd.served() >= before + 20)


def _until_replaced(daemon: Daemon, pid: int, replicas: int) -> None:
    def look() -> bool:
        pids = _pids(daemon, "a").values()
        return pid not in pids and len(pids) == replicas

    until("another serves in its place", look)


def _assert_told(replies: Sequence[Reply]) -> None:
    """Something had been received, and the end of it was said, not silent."""
    for reply in replies:
        assert len(reply.events) > 1, reply
        assert reply.error is not None, reply


def _name(worker: psutil.Process) -> str:
    """What a worker calls itself: its number is the argument that makes it."""
    return f"gateway-{json.loads(worker.cmdline()[-1])['number']}"


def _name_of_new(daemon: Daemon, name: str, old: psutil.Process) -> bool:
    return any(_name(worker) == name for worker in daemon.workers() if worker != old)

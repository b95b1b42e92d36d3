"""Gateway workers are replaced while callers come and go, and nobody notices."""

from __future__ import annotations

import json
import signal
import threading
import time

import httpx
import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.traffic import Crowd, Stream, ask, failed

MODELS = {
    "a": faulty("--delay", "0.01"),
    "streams": faulty("--chunks", "80", "--chunk-delay", "0.05"),
}


class Newcomers:
    """Callers that connect anew for each request, until the block is left."""

    def __init__(self, daemon: Daemon, callers: int = 2) -> None:
        self.served = 0
        self.errors: list[str] = []
        self._daemon = daemon
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]

    def __enter__(self) -> Newcomers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                answer = httpx.get(f"{self._daemon.url}/v1/models", trust_env=False)
                assert answer.status_code == 200, answer.text
                self.served += 1
            except (httpx.HTTPError, AssertionError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")


def _ready(daemon: Daemon) -> Daemon:
    daemon.start()
    with daemon.client() as client:
        assert ask(client, "a").is_served
        assert ask(client, "streams", stream=True).is_served
    return daemon


def _name(worker: psutil.Process) -> str:
    return f"gateway-{json.loads(worker.cmdline()[-1])['number']}"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_replaced_and_no_caller_notices(make_daemon: MakeDaemon, workers: int) -> None:
    daemon = _ready(make_daemon(MODELS, workers=workers))
    streams = [Stream(daemon, "streams") for _ in range(4)]
    until("all stream", lambda: all(stream.has_begun for stream in streams))
    before = daemon.workers()
    assert {stream.reply.worker for stream in streams} <= {_name(worker) for worker in before}
    with Crowd(daemon, ["a"], callers=4) as crowd, Newcomers(daemon) as newcomers:
        for _ in range(2):  # the second time, the first ones may still have streams
            done = daemon.run("restart-workers")
            assert done.returncode == 0, done.stderr
            assert done.stdout.count(" is replaced by ") == workers
            served, came = crowd.served(), newcomers.served
            until("more are served", lambda: crowd.served() > served + 20 and newcomers.served > came + 20)  # noqa: B023
        assert not set(before) & set(_serving(daemon))
    assert failed(crowd.replies) == []
    assert newcomers.errors == []
    assert all(stream.result().is_served for stream in streams), streams
    until("the old ones are gone", lambda: len(daemon.workers()) == workers)
    until("the controller knows the others", lambda: daemon.status().workers == workers)


def test_connections_that_come_at_once_are_shared_among_the_workers(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon(MODELS, workers=2))
    streams = [Stream(daemon, "streams") for _ in range(32)]
    until("all stream", lambda: all(stream.has_begun for stream in streams))
    of_one = sum(stream.reply.worker == "gateway-1" for stream in streams)
    assert 32 * 0.3 <= of_one <= 32 * 0.7, of_one  # more even where the machine has nothing else to do
    for stream in streams:
        assert stream.result().is_served, stream.reply


def test_a_worker_that_cannot_serve_takes_nobodys_place(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon(MODELS, workers=2))
    before = set(daemon.workers())
    log = daemon.home / "state" / "logs" / "gateway-3.log"  # the next worker's
    log.mkdir()
    with Crowd(daemon, ["a"], callers=2) as crowd:
        done = daemon.run("restart-workers")
    assert done.returncode == 1
    assert "cannot replace gateway-1, which serves on: exited with code 1" in done.stderr
    assert str(log) in done.stderr
    assert failed(crowd.replies) == []
    assert set(daemon.workers()) == before
    assert "worker.not_replaced" in (daemon.home / "state" / "logs" / "supervisor.log").read_text()
    log.rmdir()
    assert daemon.run("restart-workers").returncode == 0


def test_concurrency_holds_over_all_workers_and_through_a_workers_death(make_daemon: MakeDaemon) -> None:
    models = {"few": faulty("--chunks", "200", "--chunk-delay", "0.05", limits={"concurrency": 12})}
    daemon = make_daemon(models, workers=2).start()
    streams = _admitted(daemon, 24, 12)
    assert len({stream.reply.worker for stream in streams}) == 2, "all came to one worker"
    assert _admitted(daemon, 12, 0) == []
    victim = next(worker for worker in daemon.workers() if _name(worker) == streams[0].reply.worker)
    lost = [stream for stream in streams if stream.reply.worker == _name(victim)]
    victim.kill()
    until("it is back", lambda: len(daemon.workers()) == 2 and victim not in daemon.workers())
    again = _admitted(daemon, 24, len(lost))  # no more, and no fewer: it has left no counts behind
    done = daemon.run("restart-workers")
    assert done.returncode == 0, done.stderr
    assert _admitted(daemon, 12, 0) == []  # those that retire count for as long as their streams last
    assert all(stream.result().is_served for stream in [*streams, *again] if stream not in lost)
    until("those are gone", lambda: len(daemon.workers()) == 2)
    assert len(_admitted(daemon, 24, 12)) == 12


def _admitted(daemon: Daemon, callers: int, count: int) -> list[Stream]:
    """Those of some callers, all at once, who are let in: `count` of them. The others are told to come later."""
    streams = [Stream(daemon, "few") for _ in range(callers)]
    until("each has an answer", lambda: all(stream.reply.status for stream in streams))
    turned_away = [stream.result().status for stream in streams if stream.reply.status != 200]
    assert turned_away == [429] * (callers - count)
    return [stream for stream in streams if stream.reply.status == 200]


def test_a_hangup_without_a_terminal_replaces_workers(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(MODELS)
    daemon.has_session = True
    _ready(daemon)
    (before,) = daemon.workers()
    daemon.supervisor().send_signal(signal.SIGHUP)
    until("another serves", lambda: daemon.workers() and before not in daemon.workers())
    with daemon.client() as client:
        assert ask(client, "a").is_served


def test_a_new_worker_is_started_again_when_it_dies(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon(MODELS))
    assert daemon.run("restart-workers").returncode == 0
    until("the old one is gone", lambda: len(daemon.workers()) == 1)
    (new,) = daemon.workers()
    new.kill()
    until("it is back", lambda: daemon.workers() and new not in daemon.workers())
    assert daemon.chat("a").status_code == 200


def test_an_end_in_the_midst_of_a_replacement_leaves_no_process(make_daemon: MakeDaemon) -> None:
    daemon = _ready(make_daemon(MODELS, workers=2, grace="2s"))
    stream = Stream(daemon, "streams")
    until("it streams", lambda: stream.has_begun)
    asking = threading.Thread(target=daemon.run, args=("restart-workers",))
    asking.start()
    until("a third one is there", lambda: len(daemon.workers()) > 2)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert daemon.process.wait(20) == 0
    assert time.monotonic() - begun < 15
    asking.join(30)
    assert daemon.processes() == []


def test_without_a_daemon_there_are_no_workers_to_restart(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(MODELS)
    daemon.home.mkdir()
    done = daemon.run("restart-workers")
    assert done.returncode == 3
    assert "modelgrid is not running" in done.stderr


def _serving(daemon: Daemon) -> set[psutil.Process]:
    """The workers that take connections: those that retire have let go of the listening socket."""
    found = set()
    for worker in daemon.workers():
        if any(at.status == psutil.CONN_LISTEN and at.laddr.port == daemon.port for at in worker.net_connections()):
            found.add(worker)
    return found

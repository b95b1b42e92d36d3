"""Models that don't fit together take turns, and memory never holds more than it may."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.traffic import Crowd, ask, embed, failed

MIB = 1 << 20
BUDGET_BYTES = 320 * MIB
PYTHON_BYTES = 15 * MIB  # an engine that ends while the next one starts: an interpreter before it has read its code


def _models() -> dict[str, object]:
    text = ["--eat-memory", "150MiB"]
    return {
        "text-a": faulty(*text, "--model", "text-a", memory="190MiB"),
        "text-b": faulty(*text, "--model", "text-b", memory="190MiB"),
        "embed": faulty("--eat-memory", "60MiB", memory="100MiB"),
    }


@dataclass
class Watch:
    """What somebody beside modelgrid saw of its memory."""

    samples: int = 0
    most_resident_bytes: int = 0
    most_planned_bytes: int = 0


@contextlib.contextmanager
def _watched(daemon: Daemon) -> Iterator[Watch]:
    """Look at the memory of all engines' processes all the time, and at what the plan says of it."""
    seen = Watch()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            held_bytes = _resident_bytes(daemon)
            if held_bytes is not None:
                seen.samples += 1
                seen.most_resident_bytes = max(seen.most_resident_bytes, held_bytes)
            over.wait(0.01)

    def ask_plan() -> None:
        with daemon.control() as client:
            while not over.is_set():
                seen.most_planned_bytes = max(seen.most_planned_bytes, client.status().memory_planned_bytes)
                over.wait(0.02)

    threads = [threading.Thread(target=work, daemon=True) for work in (look, ask_plan)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(10)


def _resident_bytes(daemon: Daemon) -> int | None:
    """None where a process ended meanwhile: its memory may have been given to the next before that was looked at."""
    try:
        engines = daemon.engines()
        held_bytes = sum(process.memory_info().rss for process in engines)
    except psutil.Error:
        return None
    is_whole = all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in engines)
    return held_bytes if is_whole else None


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    return make_daemon(_models(), memory="320MiB").start()


def _pid(daemon: Daemon, model: str) -> int:
    pid = daemon.replicas(model)[0].pid
    assert pid is not None
    return pid


def test_alternating_requests_swap_the_text_models_and_spare_the_embeddings(daemon: Daemon) -> None:
    with daemon.client() as client, _watched(daemon) as seen:
        assert embed(client, "embed").is_served
        embedder = _pid(daemon, "embed")
        pids = []
        for model in ["text-a", "text-b"] * 3:
            reply = ask(client, model)
            assert reply.is_served, reply
            assert f"model {model}" in reply.text
            pids.append(reply.pid)
            assert embed(client, "embed").is_served
            assert _pid(daemon, "embed") == embedder
    assert len(set(pids)) == 6  # none of them could stay
    _within_budget(seen)


def test_eight_callers_of_mixed_models_are_all_answered_within_the_budget(daemon: Daemon) -> None:
    with daemon.client() as client:
        assert embed(client, "embed").is_served
    embedder = _pid(daemon, "embed")
    with _watched(daemon) as seen, Crowd(daemon, ["text-a", "embed", "text-b"], callers=8) as crowd:
        until(
            "both text models have had two turns, and were looked at often",
            lambda: seen.samples > 50 and _text_engines(crowd) >= 4,
            60.0,
        )
    assert failed(crowd.replies) == []
    assert _pid(daemon, "embed") == embedder
    _within_budget(seen)


def test_a_model_that_grows_beyond_the_budget_is_ended_and_told_of(make_daemon: MakeDaemon) -> None:
    models = {
        "glutton": faulty("--eat-per-request", "150MiB", memory="190MiB"),
        "embed": faulty("--eat-memory", "60MiB", memory="100MiB"),
    }
    daemon = make_daemon(models, memory="320MiB").start()
    with daemon.client() as client:
        assert embed(client, "embed").is_served
        embedder = _pid(daemon, "embed")
        assert ask(client, "glutton").is_served
        first = _pid(daemon, "glutton")
        until("the glutton is gone", lambda: not psutil.pid_exists(first))
    why = until("it is told of", lambda: next((e.why for e in daemon.events("glutton") if e.what == "failed"), None))
    assert "needs.memory of glutton" in why
    assert _pid(daemon, "embed") == embedder


def _text_engines(crowd: Crowd) -> int:
    return len({reply.pid for reply in list(crowd.replies) if reply.is_served and reply.model != "embed"})


def _within_budget(seen: Watch) -> None:
    assert seen.samples > 10, seen
    assert seen.most_planned_bytes > 190 * MIB, seen
    assert seen.most_planned_bytes <= BUDGET_BYTES, seen
    assert 150 * MIB < seen.most_resident_bytes <= BUDGET_BYTES + PYTHON_BYTES, seen

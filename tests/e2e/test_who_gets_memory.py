"""Who is loaded where there is not room for all: the more important, and who is missed most; and nobody starves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until

ONE, TWO = "250MiB", "450MiB"  # of models of 200 MiB
EVERY_S = 0.25


def model(priority: int = 0, **more: Any) -> dict[str, Any]:
    return faulty(memory="200MiB", priority=priority, **more)


def ask(daemon: Daemon, name: str) -> None:
    answer = daemon.chat(name)
    assert answer.status_code == 200, answer.text


def starts(daemon: Daemon, name: str) -> list[float]:
    return [event.at for event in daemon.events(name) if event.what == "start"]


def loaded(daemon: Daemon) -> set[str]:
    return {replica.model for replica in daemon.replicas()}


@contextlib.contextmanager
def asked_all_the_time(daemon: Daemon, name: str, every_s: float = EVERY_S) -> Iterator[list[int]]:
    """A caller that asks again a moment after each answer. Its answers, as they come."""
    over, answers = threading.Event(), list[int]()

    def call() -> None:
        body = {"model": name, "messages": [{"role": "user", "content": "hello"}]}
        with daemon.client() as client:
            while not over.wait(every_s):
                answers.append(client.post("/v1/chat/completions", json=body).status_code)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    try:
        until("it is asked for", lambda: len(answers) >= 6)
        yield answers
    finally:
        over.set()
        caller.join(60)


@contextlib.contextmanager
def busy(daemon: Daemon, name: str) -> Iterator[None]:
    """A stream that is read until the block is left; nobody takes its replica away for five seconds."""
    body = {"model": name, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    slow = {"x-faulty": "chunks=1000; chunk-delay=0.05"}
    with daemon.client() as client, client.stream("POST", "/v1/chat/completions", json=body, headers=slow) as answer:
        assert answer.status_code == 200
        yield


def test_the_more_important_one_is_first_and_goes_last(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"urgent": model(1), "batch": model(), "other": model()}, memory=ONE).start()
    with ThreadPoolExecutor(2) as callers, busy(daemon, "other"):
        batch = callers.submit(daemon.chat, "batch")
        until("it waits", lambda: daemon.model("batch").waiting == 1)
        urgent = callers.submit(daemon.chat, "urgent")
        until("it waits too", lambda: daemon.model("urgent").waiting == 1)
        assert loaded(daemon) == {"other"}
    assert (urgent.result(60).status_code, batch.result(60).status_code) == (200, 200)
    assert starts(daemon, "urgent") < starts(daemon, "batch")  # who came first is second
    daemon.config["machine"]["memory"] = TWO
    daemon.write(daemon.config)
    until("there is more room", lambda: daemon.status().memory_bytes > 400 << 20)
    ask(daemon, "urgent")
    for _ in range(5):
        ask(daemon, "batch")  # later, and more often
    ask(daemon, "other")
    until("one has gone", lambda: loaded(daemon) == {"urgent", "other"})


def test_the_less_important_one_has_its_turn_beside_one_that_is_asked_for_all_the_time(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"urgent": model(1), "batch": model()}, memory=ONE).start()
    ask(daemon, "batch")  # a model that was never loaded is taken to cost half a minute
    with asked_all_the_time(daemon, "urgent") as answers:
        ask(daemon, "batch")  # within the minute that the caller has patience
        _until_more(answers)  # it is back
    assert set(answers) == {200}
    why = daemon.run("why", "urgent").stdout
    assert "to make room for batch" in why, why


def test_who_is_missed_most_stays(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"often": model(), "now": model(), "then": model()}, memory=TWO).start()
    with asked_all_the_time(daemon, "often", every_s=0.6) as answers:
        for _ in range(3):
            for name in ("now", "then"):
                ask(daemon, name)  # and at once the next
                assert len(loaded(daemon)) <= 3
            _until_more(answers)
    assert set(answers) == {200}
    assert len(starts(daemon, "often")) == 1
    assert len(starts(daemon, "now")) == len(starts(daemon, "then")) == 3


def _until_more(answers: list[int]) -> None:
    seen = len(answers)
    until("more answers", lambda: len(answers) > seen + 3)


def test_a_queue_is_bounded_and_who_can_never_be_served_does_not_wait(make_daemon: MakeDaemon) -> None:
    models = {"other": model(), "batch": model(limits={"queue": 2}), "hasty": model(limits={"wait": "1s"})}
    daemon = make_daemon(models, memory=ONE).start()
    with ThreadPoolExecutor(2) as callers:
        with busy(daemon, "other"):
            waiting = [callers.submit(daemon.chat, "batch") for _ in range(2)]
            until("two wait", lambda: daemon.model("batch").waiting == 2)
            _refused(daemon.chat("batch"), "queue_full")
            _refused(daemon.chat("hasty"), "not_ready_in_time")
        assert [answer.result(60).status_code for answer in waiting] == [200, 200]
    daemon.config["models"]["batch"]["scaling"] = {"min": 1}
    daemon.write(daemon.config)
    until("it is kept, and has the room", lambda: daemon.model("batch").min == 1 and loaded(daemon) == {"batch"})
    answer = daemon.chat("other")
    _refused(answer, "model_unavailable")
    assert "models that are kept loaded" in answer.json()["error"]["message"]
    assert loaded(daemon) == {"batch"}


def _refused(answer: httpx.Response, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code), answer.text
    assert int(answer.headers["retry-after"]) > 0

"""How long an engine may take, as configured; and conversations that find their replica again, over two workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from e2e.daemon import LOOPBACK, Daemon, faulty, serving
from e2e.seen import told

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    four = {"min": 4, "max": 4}
    models = {
        "alone": faulty(scaling={"min": 1}),
        "by-session": faulty(scaling=four, routing="session"),
        "by-prefix": faulty(scaling=four, routing="prefix"),
        "by-load": faulty(scaling=four),
    }
    folder = tmp_path_factory.mktemp("waiting")
    with serving(folder, models, workers=2, first_byte="1s", stall="300ms") as daemon:
        yield daemon


def post(daemon: Daemon, body: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    """By a connection of its own, so that it may come to either worker."""
    url = f"http://{LOOPBACK}:{daemon.port}{CHAT}"
    return httpx.post(url, json=body, headers=headers, timeout=30.0, trust_env=False)


def served_by(answered: httpx.Response) -> str:
    assert answered.status_code == 200, answered.text
    return str(answered.json()["system_fingerprint"])  # the engine's process


def test_an_engine_that_does_not_begin_to_answer_is_given_up_after_the_configured_time(daemon: Daemon) -> None:
    began = time.monotonic()
    answered = post(daemon, {"model": "alone", "messages": []}, told(hang=True))
    assert answered.status_code == 504
    assert answered.json()["error"]["code"] == "engine_timed_out"
    assert 0.9 <= time.monotonic() - began < 5


def test_a_stream_that_stalls_ends_with_an_error_after_the_configured_time(daemon: Daemon) -> None:
    client = openai.OpenAI(base_url=f"http://{LOOPBACK}:{daemon.port}/v1", api_key="none", max_retries=0)
    headers = told(chunks=5, chunk_delay=0.6)  # the first one comes in time
    began = time.monotonic()
    stream = client.chat.completions.create(model="alone", messages=[], stream=True, extra_headers=headers)
    with pytest.raises(openai.APIError, match="the stream ends early"):
        list(stream)
    assert 0.9 <= time.monotonic() - began < 5


def test_a_session_stays_with_its_replica_whichever_worker_it_comes_to(daemon: Daemon) -> None:
    for session in range(6):
        headers = {"x-session-id": f"session-{session}"}
        homes = {served_by(post(daemon, {"model": "by-session", "messages": []}, headers)) for _ in range(6)}
        assert len(homes) == 1
    body = {"model": "by-session", "messages": []}
    homes = {served_by(post(daemon, body, {"x-session-id": f"session-{number}"})) for number in range(40)}
    assert len(homes) == 4


def test_a_conversation_stays_with_its_replica_as_it_grows(daemon: Daemon) -> None:
    homes = set()
    for conversation in range(8):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Topic {conversation}"}]
        of_this = set()
        for turn in range(5):
            of_this.add(served_by(post(daemon, {"model": "by-prefix", "messages": messages})))
            messages += [{"role": "assistant", "content": f"{turn}"}, {"role": "user", "content": f"And {turn}?"}]
        assert len(of_this) == 1
        homes |= of_this
    assert len(homes) > 1


def test_without_a_policy_replicas_take_turns(daemon: Daemon) -> None:
    homes = [served_by(post(daemon, {"model": "by-load", "messages": []})) for _ in range(16)]
    assert len(set(homes)) == 4

"""One name over several models: who serves, who stands in, and what arrives of a request, to the byte."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from e2e.daemon import Daemon, faulty, serving, until
from e2e.raw import calling, chat
from e2e.seen import Engines, told

CHAT = "/v1/chat/completions"
KEPT = {"min": 1}

MODELS = {
    "big": faulty(scaling=KEPT, aliases=["large"]),
    "small": faulty(scaling=KEPT, parameters={"cap": {"max_tokens": 100}, "strip": ["logit_bias"]}),
    "cold": faulty(),
    "erring": faulty("--status", "500", "--after", "1", scaling=KEPT),
    "busy": faulty("--status", "429", "--after", "1", scaling=KEPT),
    "dying": faulty("--crash-after", "1", scaling=KEPT),
    "mortal": faulty("--chunks", "1000", "--chunk-delay", "0.01", scaling=KEPT),
    "broken": faulty("--exit-at-start", "3"),
}
VIRTUAL: dict[str, Any] = {
    "warm": {"models": ["cold", "big"], "aliases": ["gpt-warm", "claude-warm"]},
    "spilling": {"models": ["big", "small"], "spill_over": 2},
    "erring-first": {"models": ["erring", "small"]},
    "busy-first": {"models": ["busy", "erring", "small"]},
    "dying-first": {"models": ["dying", "small"]},
    "mortal-first": {"models": ["mortal", "small"]},
    "broken-first": {"models": ["broken", "small"]},
    "proud": {"models": ["erring", "small"], "fall_back": False},
    "shared": {"models": [{"model": "big", "weight": 4}, {"model": "small", "weight": 1}], "choose": "weight"},
    "shaped": {
        "models": [
            {
                "model": "small",
                "parameters": {
                    "set": {"seed": 7},
                    "default": {"temperature": 0.5},
                    "cap": {"max_tokens": 10},
                    "strip": ["user"],
                },
            }
        ]
    },
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("virtual"), MODELS, virtual=VIRTUAL) as daemon:
        yield daemon


def pid(daemon: Daemon, model: str) -> int:
    return next(replica.pid for replica in daemon.replicas(model) if replica.pid)


def ask(daemon: Daemon, model: str) -> int:
    """The process that serves it."""
    with daemon.client() as client:
        answer = client.post(CHAT, content=chat(model))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["system_fingerprint"].removeprefix("pid-"))


def sent_on(daemon: Daemon, model: str, body: bytes) -> bytes:
    """What an engine of `model` gets of a body."""
    headers = {"x-request-id": told()["x-request-id"], "content-type": "application/json"}
    with daemon.client(headers=headers) as client:
        client.post(CHAT, content=body)  # whatever that engine says to it
    (received,) = Engines(daemon, model).received(headers)
    return base64.b64decode(received["body_base64"])


# Who serves.


@pytest.mark.parametrize("name", ["warm", "gpt-warm", "claude-warm"])
def test_the_first_that_is_warm_serves_and_none_is_started(daemon: Daemon, name: str) -> None:
    assert ask(daemon, name) == pid(daemon, "big")
    assert daemon.model("cold").state == "cold"


def test_a_model_with_a_long_queue_spills_over_until_it_has_room_again(daemon: Daemon) -> None:
    big, small = pid(daemon, "big"), pid(daemon, "small")
    with contextlib.ExitStack() as streams:
        open_streams = [streams.enter_context(calling(daemon)) for _ in range(2)]
        for raw in open_streams:
            raw.post(CHAT, chat("spilling", stream=True), told(chunks=1000, chunk_delay=0.01))
            assert str(big) in raw.until(b"word1").decode()
        assert {ask(daemon, "spilling") for _ in range(5)} == {small}
        open_streams[0].leave()
        until("there is room again", lambda: ask(daemon, "spilling") == big)
    until("nothing is in flight", lambda: Engines(daemon, "big").pages("left", 1)[0]["in_flight"] == 0)


def test_shares_are_as_the_weights(daemon: Daemon) -> None:
    requests = 500
    fingerprints = {model: f"pid-{pid(daemon, model)}" for model in ("big", "small")}
    with daemon.client() as client:
        answers = [client.post(CHAT, content=chat("shared")).json() for _ in range(requests)]
    served = Counter(answer["system_fingerprint"] for answer in answers)
    assert set(served) == set(fingerprints.values())
    share = served[fingerprints["small"]] / requests
    assert 0.11 < share < 0.29  # a fifth; five standard deviations


# Who stands in.


@pytest.mark.parametrize("name", ["erring-first", "busy-first", "dying-first", "broken-first"])
def test_the_next_one_answers_for_a_model_that_fails(daemon: Daemon, name: str) -> None:
    arrived = sent_on(daemon, "small", chat(name, max_tokens=5000))
    assert arrived == chat("small", max_tokens=100)  # with what that one does to requests


def test_a_model_that_is_killed_is_stood_in_for_and_then_serves_again(daemon: Daemon) -> None:
    first = pid(daemon, "mortal")
    with calling(daemon) as raw:
        raw.post(CHAT, chat("mortal-first", stream=True))
        raw.until(b"word2")
        os.kill(first, signal.SIGKILL)
        assert b'"engine_lost"' in raw.rest()  # what had begun isn't begun anew by another one
    assert ask(daemon, "mortal-first") == pid(daemon, "small")
    until("it serves again", lambda: ask(daemon, "mortal-first") not in (first, pid(daemon, "small")))


def test_without_fall_back_the_caller_gets_the_error(daemon: Daemon) -> None:
    with daemon.client() as client:
        answer = client.post(CHAT, content=chat("proud"))
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "told to answer 500")


def test_a_stream_falls_back_too_and_openais_client_notices_nothing(daemon: Daemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="erring-first", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        served = {chunk.system_fingerprint for chunk in stream}
    assert served == {f"pid-{pid(daemon, 'small')}"}


# What arrives.

ODD = (
    b'{ "odd" :1.10,"odd":[2.0E+3 , 12345678901234567890123456789], "model"\t:"%b" ,'
    b'"text":"\\u00e9 \xc3\xa9 \xf0\x9f\xa6\x89 %b",%b"messages":[{"role":"user","content":"model"}] }\n'
)


@pytest.mark.parametrize("name", ["big", "large", "warm", "gpt-warm"])
@pytest.mark.parametrize("text", [b"\xff no UTF-8", b"half of a pair: \\ud83e"])
def test_only_the_models_name_is_changed(daemon: Daemon, name: str, text: bytes) -> None:
    assert sent_on(daemon, "big", ODD % (name.encode(), text, b"")) == ODD % (b"big", text, b"")


def test_parameters_change_what_they_name_and_no_other_byte(daemon: Daemon) -> None:
    said = b'"max_tokens":5000,"user":"me","logit_bias":{"5":1},'
    arrived = sent_on(daemon, "small", ODD % (b"shaped", b"", said))
    kept, _, put_in = arrived.rpartition(b"]")
    assert kept + b"] }\n" == ODD % (b"small", b"", b'"max_tokens":10,')
    added = json.loads(b'{"":0' + put_in)
    assert added == {"": 0, "temperature": 0.5, "seed": 7}


def test_what_the_caller_says_is_not_overruled_by_a_default(daemon: Daemon) -> None:
    arrived = json.loads(sent_on(daemon, "small", chat("shaped", temperature=0.9, max_tokens=3, seed=1)))
    assert (arrived["temperature"], arrived["max_tokens"], arrived["seed"]) == (0.9, 3, 7)


# What is told.


def test_a_name_is_listed_with_the_models_behind_it(daemon: Daemon) -> None:
    with daemon.client() as client:
        listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert listed["spilling"]["models"] == ["big", "small"]
    assert set(VIRTUAL) <= set(listed)

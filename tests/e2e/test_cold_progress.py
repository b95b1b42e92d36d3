"""A cold model's callers: told while it starts, sent by priority, and not later than they said."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest

from e2e.daemon import Daemon, faulty, serving, until
from e2e.raw import Raw, calling, chat
from e2e.seen import told

CHAT = "/v1/chat/completions"
PROGRESS = {"x-modelgrid-progress": "1"}
SIGN = r": modelgrid waiting model=%s state=\w+ waited=\d+\.\ds( starts=\d+s)?( why=[^\n]+)?\n\n"
START_S = "2"  # longer than the first sign takes to come


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    cold = faulty("--start-delay", START_S)
    models = dict.fromkeys(("raw", "client", "refused", "anthropic", "late", "ordered"), cold)
    models["always"] = faulty("--start-delay", START_S, limits={"progress": True})
    with serving(tmp_path_factory.mktemp("cold"), models) as daemon:
        yield daemon


def parts(caller: Raw) -> Iterator[bytes]:
    """The chunks of an answer whose head was read."""
    while size := int(caller.until(b"\r\n"), 16):
        yield caller.take(size)
        caller.until(b"\r\n")
    caller.until(b"\r\n")


def requests_of(daemon: Daemon, model: str) -> list[dict[str, Any]]:
    """Those of callers that its engine got, in order."""
    (replica,) = daemon.replicas(model)
    assert replica.url is not None
    found = httpx.get(f"{replica.url.removesuffix('/v1')}/faulty/requests", trust_env=False).json()["requests"]
    named = [{name.lower(): value for name, value in seen["headers"]} for seen in found]
    return [headers for headers in named if "x-request-id" in headers]


def test_a_cold_models_caller_is_told_while_it_starts_and_gets_the_stream_as_the_engine_sends_it(
    daemon: Daemon,
) -> None:
    with calling(daemon) as caller:
        caller.post(CHAT, chat("raw", stream=True), PROGRESS)
        answered = caller.read_head()
        assert daemon.model("raw").state != "ready"  # the head is there before the engine
        assert (answered.status, answered.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        received = list(parts(caller))
        signs = [part.decode() for part in received if part.startswith(b":")]
        assert signs
        assert all(re.fullmatch(SIGN % "raw", sign) for sign in signs), signs
        cold = b"".join(received[len(signs) :])
        caller.post(CHAT, chat("raw", stream=True), PROGRESS)  # the connection goes on, and the model is warm
        warm = caller.answer()
    assert warm.is_whole
    assert re.sub(rb'"(id|created)":[^,]+', b"", cold) == re.sub(rb'"(id|created)":[^,]+', b"", warm.body)
    assert cold.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("model", "headers"), [("client", PROGRESS), ("always", {})])
def test_the_openai_client_overlooks_signs(daemon: Daemon, model: str, headers: dict[str, str]) -> None:
    def words(stream: openai.Stream[Any]) -> list[str | None]:
        return [event.choices[0].delta.content for event in stream if event.choices]

    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=30, max_retries=0) as client:
        asked: Any = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        cold = client.chat.completions.create(**asked, extra_headers=headers)
        assert daemon.model(model).state != "ready"  # the client has its answer's head already
        assert words(cold) == words(client.chat.completions.create(**asked))


def test_an_engines_refusal_reaches_the_client_as_its_error(daemon: Daemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=30, max_retries=0) as client:
        stream = client.chat.completions.create(
            model="refused", messages=[], stream=True, extra_headers=PROGRESS | told(status=400)
        )
        with pytest.raises(openai.APIError, match="told to answer 400"):
            list(stream)


def test_the_anthropic_client_overlooks_signs(daemon: Daemon) -> None:
    with anthropic.Anthropic(base_url=daemon.url, api_key="none", timeout=30, max_retries=0) as client:
        stream = client.messages.create(
            model="anthropic",
            max_tokens=9,
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            extra_headers=PROGRESS,
        )
        assert daemon.model("anthropic").state != "ready"
        kinds = [event.type for event in stream]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_who_doesnt_wait_so_long_is_answered_and_never_sent(daemon: Daemon) -> None:
    began = time.monotonic()
    with daemon.client() as client:
        body = json.loads(chat("late"))
        answered = client.post(CHAT, json=body, headers={"x-modelgrid-timeout": "500ms", "x-request-id": "late"})
        assert (answered.status_code, answered.json()["error"]["code"]) == (503, "not_ready_in_time")
        assert time.monotonic() - began < float(START_S)
        assert client.post(CHAT, json=body, headers={"x-request-id": "patient"}).status_code == 200
    assert [seen["x-request-id"] for seen in requests_of(daemon, "late")] == ["patient"]


def test_who_waits_for_a_cold_model_is_sent_by_priority(daemon: Daemon) -> None:
    def ask(priority: str) -> int:
        headers = {"x-modelgrid-priority": priority, "x-request-id": priority}
        with daemon.client() as client:
            return client.post(CHAT, json=json.loads(chat("ordered")), headers=headers).status_code

    came = ["low", "-60", "normal", "high", "90"]
    with ThreadPoolExecutor(len(came)) as pool:
        asked = [pool.submit(ask, priority) for priority in came]
        until("all of them wait", lambda: daemon.model("ordered").waiting == len(came))
        assert [one.result() for one in asked] == [200] * len(came)
    assert [seen["x-request-id"] for seen in requests_of(daemon, "ordered")] == ["90", "high", "normal", "low", "-60"]

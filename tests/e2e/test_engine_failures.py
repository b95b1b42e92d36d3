"""Engines that die, break off, talk nonsense or are sick: callers get an answer of another one, or an honest end."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from e2e.daemon import LOOPBACK, Daemon, faulty, free_port, serving, until
from e2e.raw import Raw, calling, chat
from e2e.seen import Engines, told

CHAT = "/v1/chat/completions"

# What an engine may do before a byte of its body: another one answers, and the caller doesn't notice.
SILENT: dict[str, dict[str, Any]] = {
    "closes": {"cut": "before"},
    "resets": {"cut": "before", "cut_by": "reset"},
    "half-a-head": {"cut": "half-head"},
    "a-head-alone": {"cut": "head"},
    "no-http": {"garbage": "http"},
    "broken-header": {"garbage": "header"},
    "two-lengths": {"garbage": "lengths"},
    "huge-head": {"huge_head": "128KiB"},
    "503": {"status": 503},
}
LASTING = {"no-http-at-all": SILENT["no-http"], "503-at-all": {"status": 503, "retry_after": "7"}}


def remote(*ports: int) -> dict[str, Any]:
    return {"engine": "remote", "urls": [f"http://{LOOPBACK}:{port}/v1" for port in ports]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    first, second, sick = free_port(), free_port(), free_port()
    models = {
        "first": faulty(port=first, scaling={"min": 1}),
        "second": faulty(port=second, scaling={"min": 1}),
        "sick": faulty("--status", "500", "--after", "1", "--first", "6", port=sick, scaling={"min": 1}),
        "mortal": faulty("--chunks", "1000", "--chunk-delay", "0.01", scaling={"min": 5, "max": 5}),
        # Each has breakers of its own, so that no case is in the way of the next one.
        **{name: remote(first, second) for name in (*SILENT, *LASTING)},
        "one-is-sick": remote(first, sick),
    }
    with serving(tmp_path_factory.mktemp("failures"), models) as daemon:
        yield daemon


# Before a byte has reached the caller.


@pytest.mark.parametrize("case", list(SILENT))
def test_another_replica_answers_for_one_that_fails_before_its_first_byte(daemon: Daemon, case: str) -> None:
    headers = told(first=1, **SILENT[case])
    failing, other = Engines(daemon, "first"), Engines(daemon, "second")
    with contextlib.suppress(httpx.HTTPError):  # the other one has failed already, and now it does well
        httpx.post(f"{other.urls[0]}/chat/completions", headers=headers, content=chat("x"), trust_env=False)
    with daemon.client(headers=headers) as client:

        def ask() -> bool:
            answer = client.post(CHAT, content=chat(case))
            assert answer.status_code == 200, answer.text
            return bool(failing.courses(headers))

        until("the failing one was asked", ask, 10)
    assert len(failing.courses(headers)) == 1


def test_an_engine_that_is_killed_before_its_first_byte_is_stood_in_for(daemon: Daemon) -> None:
    headers = told(delay=1.0, chunks=3)
    engines = Engines(daemon, "mortal")
    answers: list[httpx.Response] = []
    with daemon.client(headers=headers) as client:
        asking = threading.Thread(target=lambda: answers.append(client.post(CHAT, content=chat("mortal"))))
        asking.start()
        victim = until("it is asked", lambda: _pid_of(engines, headers))
        os.kill(victim, signal.SIGKILL)
        asking.join(30)
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["system_fingerprint"] != f"pid-{victim}"


def test_an_engine_that_closed_a_kept_connection_is_asked_once_more(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = client.post(CHAT, content=chat("second"), headers=told(stale=True))
        begun = time.monotonic()
        second = client.post(CHAT, content=chat("second"))
        assert time.monotonic() - begun < 0.9  # it was no failure: nobody is left alone for it
    assert first.status_code == second.status_code == 200
    assert first.json()["system_fingerprint"] == second.json()["system_fingerprint"]


def test_an_engine_that_only_talks_nonsense_is_named(daemon: Daemon) -> None:
    with daemon.client(headers=told(**LASTING["no-http-at-all"])) as client:
        answer = client.post(CHAT, content=chat("no-http-at-all"))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (502, "engine_error", "engine_lost")
    assert "what is not HTTP" in error["message"]
    assert "(try: modelgrid logs no-http-at-all)" in error["message"]


def test_engines_that_are_all_busy_say_so_themselves(daemon: Daemon) -> None:
    headers = told(**LASTING["503-at-all"])
    with daemon.client(headers=headers) as client:
        answer = client.post(CHAT, content=chat("503-at-all"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json()["error"]["message"] == "told to answer 503"
    assert len(Engines(daemon, "first", "second").courses(headers)) == 2  # both were asked, once


def test_a_server_that_takes_no_connections_is_passed_over_in_time(daemon: Daemon) -> None:
    with _Deaf() as deaf:
        daemon.write({**daemon.config, "models": {**daemon.config["models"], "half": remote(_port(daemon), deaf.port)}})
        daemon.until_state("half", "ready")
        until("both are ready", lambda: [one.state for one in daemon.replicas("half")] == ["ready"] * 2)
        deaf.stop_taking()
        took_s = []
        with daemon.client() as client:
            for _ in range(4):
                begun = time.monotonic()
                assert client.post(CHAT, content=chat("half")).status_code == 200
                took_s.append(time.monotonic() - begun)
    daemon.write(daemon.config)
    assert 4 < max(took_s) < 8  # the limit for a connection is five seconds
    assert sorted(took_s)[-2] < 1  # and is met once


# After a byte has reached the caller.


def test_a_stream_whose_engine_is_killed_ends_with_an_error_event(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        raw.post(CHAT, chat("mortal", stream=True))
        pid = _begun(raw)
        os.kill(pid, signal.SIGKILL)
        events = _events(raw.rest())
    error = json.loads(events[-1])["error"]
    assert (error["type"], error["code"]) == ("engine_error", "engine_lost")
    assert error["message"].startswith("the stream ends early: the engine ")
    assert "[DONE]" not in events
    assert all("error" not in json.loads(event) for event in events[:-1])


def test_openais_client_raises_where_a_streams_engine_is_killed(daemon: Daemon) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="mortal", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        os.kill(_named(next(stream).system_fingerprint or ""), signal.SIGKILL)
        with pytest.raises(openai.APIError, match="the stream ends early: the engine"):
            list(stream)


def test_anthropics_client_raises_where_a_streams_engine_is_killed(daemon: Daemon) -> None:
    with anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0) as client:
        stream = client.messages.create(
            model="mortal", max_tokens=9, messages=[{"role": "user", "content": "hello"}], stream=True
        )
        for event in stream:
            if event.type == "content_block_delta":
                os.kill(_named(str(event.delta)), signal.SIGKILL)
                break
        with pytest.raises(anthropic.APIStatusError, match="the stream ends early: the engine") as raised:
            list(stream)
    assert raised.value.body["error"]["type"] == "api_error"  # type: ignore[index]  # as Anthropic's own


def test_a_stream_of_a_response_whose_engine_breaks_off_raises(daemon: Daemon) -> None:
    with (
        openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIError, match="the stream ends early: the engine"),
    ):
        list(
            client.responses.create(
                model="first", input="hello", stream=True, extra_headers=told(cut_events=3, cut_by="reset")
            )
        )


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("cut_by", ["close", "reset"])
def test_an_answer_that_is_cut_short_does_not_look_whole(daemon: Daemon, framing: str, cut_by: str) -> None:
    with calling(daemon) as raw:
        raw.post(CHAT, chat("first"), told(cut="middle", cut_by=cut_by, framing=framing))
        answered = raw.answer()
    assert (answered.status, answered.is_whole) == (200, False)


def test_a_text_whose_engine_is_killed_does_not_look_whole(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        raw.post("/v1/chat/mortal?stream=true", b"hello")
        os.kill(_begun(raw), signal.SIGKILL)
        assert not raw.rest().endswith(b"0\r\n\r\n")


# One that is sick.


def test_a_replica_that_only_errs_is_left_alone_until_it_is_well(daemon: Daemon) -> None:
    sick = f"pid-{daemon.replicas('sick')[0].pid}"
    seen: list[str] = []  # who answered, or that it was an error
    with daemon.client() as client:

        def ask() -> str:
            answer = client.post(CHAT, content=chat("one-is-sick"))
            seen.append("error" if answer.status_code == 500 else answer.json()["system_fingerprint"])
            return seen[-1]

        until("the sick one is well, and that was found out", lambda: ask() == sick, 20)
        errors = [number for number, who in enumerate(seen) if who == "error"]
        assert len(errors) == 6  # five in a row, and one probe
        assert errors[4] < 10
        assert errors[5] - errors[4] > 20  # meanwhile the other one has served
        assert {ask() for _ in range(6)} == {sick, seen[errors[4] + 1]}  # both serve


def _pid_of(engines: Engines, headers: dict[str, str]) -> int:
    wanted = headers["x-request-id"]
    with contextlib.suppress(httpx.HTTPError):
        for page in engines.pages("left", 20):
            if any(one["request_id"] == wanted for one in page["requests"]):
                return int(page["pid"])
    return 0


def _port(daemon: Daemon) -> int:
    port: int = daemon.config["models"]["first"]["port"]
    return port


def _begun(raw: Raw) -> int:
    """Which process answers a stream."""
    return _named(raw.until(b"word2").decode())


def _named(text: str) -> int:
    found = re.search(r"pid[- ](\d+)", text)
    assert found, text
    return int(found[1])


def _events(stream: bytes) -> list[str]:
    return re.findall(r"^data: (.*)$", stream.decode(), re.MULTILINE)


class _Deaf:
    """A server that is well, until it takes no connections any more: then the kernel drops who comes."""

    def __init__(self) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say({"object": "list", "data": [{"id": "half"}]})

            def do_POST(self) -> None:
                self._say({"object": "chat.completion", "choices": []})

            def _say(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._callers: list[socket.socket] = []
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> _Deaf:
        self._thread.start()
        return self

    def stop_taking(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.socket.listen(0)
        for _ in range(8):  # fill the line of those who wait to be taken
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex((LOOPBACK, self.port))
            self._callers.append(caller)

    def __exit__(self, *_: object) -> None:
        for caller in self._callers:
            caller.close()
        self._server.server_close()

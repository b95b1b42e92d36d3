"""The test engine answers as an engine does, and fails as it is told."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

if TYPE_CHECKING:
    from unit.services.conftest import Program

Faulty = Callable[..., "Program"]
CHAT = "/v1/chat/completions"


def test_it_answers_as_an_engine_does(faulty: Faulty) -> None:
    program = faulty("--model", "m", "--chunks", "3")
    pid = program.process.pid
    answer = program.post(CHAT, {"model": "m"}).json()
    assert answer["choices"][0]["message"]["content"] == f"pid {pid} model m word1 word2"
    assert answer["system_fingerprint"] == f"pid-{pid}"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert program.post("/v1/completions", {"model": "m"}).json()["choices"][0]["text"].startswith(f"pid {pid}")
    vectors = program.post("/v1/embeddings", {"model": "m", "input": ["a", "b"]}).json()["data"]
    assert [len(vector["embedding"]) for vector in vectors] == [8, 8]
    assert program.get("/v1/models").json()["data"][0]["id"] == "m"
    assert program.stop() == 0


def test_a_stream_says_the_same_as_a_whole_answer(faulty: Faulty) -> None:
    program = faulty("--chunks", "3")
    body = {"stream": True, "stream_options": {"include_usage": True}}
    lines = [line for line in program.post(CHAT, body).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    said = "".join(event["choices"][0]["delta"].get("content", "") for event in events if event["choices"])
    assert said == program.post(CHAT).json()["choices"][0]["message"]["content"]
    assert events[-1]["usage"]["total_tokens"] == 6


def test_bad_requests_are_told_so(faulty: Faulty) -> None:
    program = faulty("--model", "m")
    assert program.post(CHAT, {"model": "other"}).status_code == 404
    assert program.post(CHAT, b"{").status_code == 400
    assert program.post(CHAT, b"[]").status_code == 400
    assert program.post("/v1/nothing").status_code == 404
    assert program.get("/nothing").status_code == 404


def test_what_came_is_echoed_byte_for_byte(faulty: Faulty) -> None:
    program = faulty("--echo")
    body = b'{"model": "m",  "odd": "\xc3\xa9"}'
    answer = program.post(CHAT, body, headers={"X-Mine": "1"}).json()
    assert answer["body"].encode() == body
    assert ["X-Mine", "1"] in answer["headers"]
    counts = program.get("/faulty/requests").json()
    assert (counts["posts"], counts["most_in_flight"], counts["left"]) == (1, 1, 0)
    assert counts["requests"][0]["body"].encode() == body


def test_the_key_is_asked_for_when_the_environment_has_one(faulty: Faulty) -> None:
    program = faulty("--key-from-env", env={"MODELGRID_ENGINE_KEY": "k"})
    assert program.post(CHAT).status_code == 401
    assert program.post(CHAT, headers={"Authorization": "Bearer k"}).status_code == 200


def test_it_crashes_after_so_many_requests_and_says_why(faulty: Faulty) -> None:
    program = faulty("--crash-after", "1")
    assert program.post(CHAT).status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        program.post(CHAT)
    assert program.process.wait(10) == 1
    assert program.lines()[-1] == "RuntimeError: told to crash after 1 requests"


def test_it_crashes_in_the_middle_of_a_stream(faulty: Faulty) -> None:
    program = faulty("--crash-mid-stream", "2")
    assert program.post(CHAT).status_code == 200
    got: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        collect(program.url + CHAT, got)
    assert b"".join(got).count(b"data: ") == 2
    assert program.process.wait(10) == 1


def collect(url: str, got: list[bytes]) -> None:
    with httpx.stream("POST", url, content=b'{"stream": true}') as answer:
        got.extend(answer.iter_raw())


def test_it_hangs_after_so_many_requests(faulty: Faulty) -> None:
    program = faulty("--hang-after", "1", "--hang-health")
    assert program.post(CHAT).status_code == 200
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(program.url + CHAT, content=b"{}", timeout=0.2)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(program.url + "/health", timeout=0.2)


def test_it_notices_who_leaves(faulty: Faulty) -> None:
    program = faulty("--delay", "20")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(program.url + CHAT, content=b"{}", timeout=0.1)
    deadline = time.monotonic() + 5
    while program.get("/faulty/requests").json()["left"] != 1:
        assert time.monotonic() < deadline
    assert program.get("/faulty/requests").json()["in_flight"] == 0


def test_it_fails_at_the_start_with_its_code_and_reason(faulty: Faulty, tmp_path: Path) -> None:
    program = faulty("--exit-at-start", "3", waits=False)
    assert program.process.wait(10) == 3
    assert program.lines()[-1] == "RuntimeError: told to exit at the start with code 3"
    once = tmp_path / "once"
    once.touch()
    assert faulty("--crash-once-file", str(once), waits=False).process.wait(10) == 1
    assert faulty("--crash-once-file", str(once)).stop() == 0


def test_a_port_in_use_is_a_reason_too(faulty: Faulty) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = faulty(waits=False, port=port)
        assert program.process.wait(10) == 1
    assert program.lines()[-1] == f"OSError: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_it_is_healthy_late_or_never(faulty: Faulty) -> None:
    late = faulty("--health-delay", "0.3", waits=False)
    never = faulty("--never-healthy", waits=False)
    late.wait_for(status=503)
    never.wait_for(status=503)
    late.wait_for(status=200)
    assert never.get("/health").status_code == 503


def test_it_answers_garbage(faulty: Faulty) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        faulty("--garbage", "http").post(CHAT)
    with pytest.raises(json.JSONDecodeError):
        faulty("--garbage", "json").post(CHAT).json()
    cut = faulty("--cut-body")
    with pytest.raises(httpx.RemoteProtocolError):
        cut.post(CHAT)
    late = faulty("--garbage", "json", "--garbage-after", "1")
    assert late.post(CHAT).json()["object"] == "chat.completion"
    assert faulty("--error-after", "0").post(CHAT).status_code == 500


def test_it_refuses_to_stop(faulty: Faulty) -> None:
    program = faulty("--refuse-stop")
    program.process.send_signal(signal.SIGTERM)
    assert program.post(CHAT).status_code == 200
    assert program.process.poll() is None


def test_it_does_only_so_many_at_once(faulty: Faulty) -> None:
    program = faulty("--delay", "0.2", "--at-once", "1")
    began = time.monotonic()
    with ThreadPoolExecutor(3) as callers:
        answers = list(callers.map(lambda _: program.post("/v1/chat/completions", {"model": "m"}), range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert time.monotonic() - began >= 0.6  # one after the other


def test_it_finishes_what_is_in_flight_when_it_is_told_to_stop(faulty: Faulty) -> None:
    program = faulty("--chunk-delay", "0.1")
    with httpx.stream("POST", program.url + CHAT, content=b'{"stream": true}') as answer:
        program.process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
    assert program.process.wait(10) == 0


def test_it_really_eats_memory(faulty: Faulty) -> None:
    program = faulty("--eat-memory", "64MiB", "--eat-per-request", "32MiB")
    of = psutil.Process(program.process.pid)
    before = of.memory_info().rss
    assert before > 64 << 20
    program.post(CHAT)
    assert of.memory_info().rss - before > 30 << 20


def test_its_child_lives_in_a_session_of_its_own(faulty: Faulty) -> None:
    program = faulty("--spawn-child")
    (line,) = (line for line in program.lines() if "child process" in line)
    child = psutil.Process(int(re.findall(r"\d+$", line)[0]))
    try:
        assert program.stop() == 0
        assert child.is_running()
    finally:
        child.kill()


def test_a_chunked_body_and_a_second_request_on_one_connection_are_read(faulty: Faulty) -> None:
    program = faulty("--echo")
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        chunked = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        client.sendall(chunked + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = b""
        while piece := client.recv(65536):
            got += piece
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert b'"body": "{}"' in got


def test_it_gives_its_memory_back_when_it_sleeps(faulty: Faulty) -> None:
    program = faulty("--sleepable", "--eat-memory", "100MiB")
    process = psutil.Process(program.process.pid)
    assert process.memory_info().rss > 100 << 20
    for _ in range(2):
        assert program.post("/sleep?level=1").status_code == 200
        assert program.get("/is_sleeping").json() == {"is_sleeping": True}
        assert process.memory_info().rss < 100 << 20
        assert program.post(CHAT).status_code == 500
        assert program.post("/wake_up").status_code == 200
        assert program.get("/is_sleeping").json() == {"is_sleeping": False}
        assert process.memory_info().rss > 100 << 20
        assert program.post(CHAT).status_code == 200
    assert program.get("/faulty/requests").json()["asked_asleep"] == 2


def test_what_can_not_sleep_has_no_such_path(faulty: Faulty) -> None:
    program = faulty()
    assert program.post("/sleep?level=1").status_code == 404
    assert program.get("/is_sleeping").status_code == 404


def test_it_fails_to_sleep_and_to_wake_as_it_is_told(faulty: Faulty) -> None:
    program = faulty("--sleepable", "--sleep-fault", "error", "--wake-fault", "lose", "--sleep-faults", "2")
    assert program.post("/sleep").status_code == 500
    assert program.get("/is_sleeping").json() == {"is_sleeping": False}
    lies = faulty("--sleepable", "--eat-memory", "100MiB", "--sleep-fault", "lie")
    assert lies.post("/sleep").status_code == 200
    assert lies.get("/is_sleeping").json() == {"is_sleeping": True}
    assert psutil.Process(lies.process.pid).memory_info().rss > 100 << 20
    loses = faulty("--sleepable", "--sleep-fault", "lose", "--sleep-faults", "1")
    with pytest.raises(httpx.RemoteProtocolError):
        loses.post("/sleep")
    assert loses.get("/is_sleeping").json() == {"is_sleeping": True}

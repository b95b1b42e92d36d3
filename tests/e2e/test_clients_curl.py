"""curl, as people and scripts use it, through the gateway."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.clients import SOLO, SOUND, Served, heard, told
from e2e.daemon import until

CHAT = "/v1/chat/completions"
ASKED = json.dumps({"model": SOLO, "messages": [{"role": "user", "content": "hello"}]})
STREAMED = json.dumps({**json.loads(ASKED), "stream": True})
PARTIAL_FILE, TIMED_OUT = 18, 28  # curl's exit codes

Curl = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def curl(served: Served) -> Curl:
    """Runs curl with a caller's key: ``curl("/v1/models", "-i")``."""
    program = shutil.which("curl")
    assert program, "cannot run curl: it is not there (install curl)"

    def run(path: str, *arguments: str, headers: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        sent = {"authorization": f"Bearer {served.key}", **(headers or {})}
        flags = [flag for name, value in sent.items() for flag in ("-H", f"{name}: {value}")]
        command = [program, "-sS", "--noproxy", "*", "--max-time", "30", *flags, *arguments, served.url + path]
        return subprocess.run(command, capture_output=True, check=False, timeout=60)

    return run


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    (tmp_path / "talk.wav").write_bytes(SOUND)
    return tmp_path / "talk.wav"


def json_of(done: subprocess.CompletedProcess[bytes]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_a_chat_is_answered_whole_and_streamed(curl: Curl) -> None:
    json_type = {"content-type": "application/json"}
    assert json_of(curl(CHAT, "-d", ASKED, headers=json_type))["object"] == "chat.completion"
    assert json_of(curl(CHAT, "-d", ASKED))["object"] == "chat.completion"  # as a form, which curl claims by itself
    stream = curl(CHAT, "-N", "-d", STREAMED, headers=json_type)
    assert stream.stdout.endswith(b"data: [DONE]\n\n")
    assert curl(f"/v1/chat/{SOLO}", "-d", "Hello").stdout.startswith(b"pid ")


@pytest.mark.parametrize("model_is_first", [True, False])
def test_a_file_is_uploaded_wherever_the_model_stands(curl: Curl, sound: Path, model_is_first: bool) -> None:
    fields = ["-F", f"file=@{sound}"]
    fields = ["-F", f"model={SOLO}", *fields] if model_is_first else [*fields, "-F", f"model={SOLO}"]
    for more in ([], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]):
        answer = json_of(curl("/v1/audio/transcriptions", *fields, *more))
        assert answer["text"] == heard("talk.wav", SOUND)


def test_a_large_file_before_its_model_arrives_whole(curl: Curl, tmp_path: Path) -> None:
    data = SOUND * 24
    (tmp_path / "long.wav").write_bytes(data)
    answer = json_of(curl("/v1/audio/transcriptions", "-F", f"file=@{tmp_path / 'long.wav'}", "-F", f"model={SOLO}"))
    assert answer["text"] == heard("long.wav", data)


def test_a_body_in_chunks_from_standard_input_arrives_whole(served: Served, curl: Curl, tmp_path: Path) -> None:
    body = json.dumps({**json.loads(ASKED), "padding": "é" * 300_000}, ensure_ascii=False).encode()
    (tmp_path / "body.json").write_bytes(body)
    headers = {"content-type": "application/json", **told()}
    chunked = ["-X", "POST", "-T", str(tmp_path / "body.json"), "-H", "Transfer-Encoding: chunked"]
    assert json_of(curl(CHAT, *chunked, headers=headers))["object"] == "chat.completion"
    (seen,) = served.received(headers["x-request-id"])
    assert seen["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_a_messages_stream_keeps_its_events(curl: Curl) -> None:
    body = json.dumps({"model": SOLO, "max_tokens": 9, "stream": True, "messages": []})
    stream = curl("/v1/messages", "-N", "-d", body, headers={"anthropic-version": "2023-06-01"})
    assert stream.stdout.startswith(b"event: message_start\ndata: ")
    assert stream.stdout.endswith(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')


def test_a_sound_is_downloaded(curl: Curl, tmp_path: Path) -> None:
    body = json.dumps({"model": SOLO, "input": "hello", "voice": "alloy"})
    assert curl("/v1/audio/speech", "-o", str(tmp_path / "out.wav"), "-d", body).returncode == 0
    assert (tmp_path / "out.wav").read_bytes()[:4] == b"RIFF"


def test_what_engines_have_at_their_root_is_there(curl: Curl) -> None:
    tokens = json_of(curl("/tokenize", "-d", json.dumps({"model": SOLO, "prompt": "héllo"})))["tokens"]
    text = json_of(curl("/detokenize", "-d", json.dumps({"model": SOLO, "tokens": tokens})))
    assert text["prompt"] == "héllo"
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        assert json_of(curl(path, "-d", json.dumps({"model": SOLO, "query": "a", "documents": ["a"]})))["results"]
    for path in ("/score", "/v1/score"):
        assert json_of(curl(path, "-d", json.dumps({"model": SOLO, "text_1": "a", "text_2": "a"})))["data"]
    for path in ("/classify", "/pooling"):
        assert json_of(curl(path, "-d", json.dumps({"model": SOLO, "input": "a"})))["data"]
    infilled = json_of(curl("/infill", "-d", json.dumps({"model": SOLO, "input_prefix": "a", "input_suffix": "b"})))
    assert infilled["stop"] is True


def test_a_kept_response_is_deleted(curl: Curl) -> None:
    made = json_of(curl("/v1/responses", "-d", json.dumps({"model": SOLO, "input": "hello"})))
    assert json_of(curl(f"/v1/responses/{made['id']}"))["id"] == made["id"]
    assert json_of(curl(f"/v1/responses/{made['id']}", "-X", "DELETE"))["deleted"] is True
    assert curl(f"/v1/responses/{made['id']}", "-o", "/dev/null", "-w", "%{http_code}").stdout == b"404"


def test_old_http_and_heads_alone_are_answered(curl: Curl) -> None:
    assert json_of(curl(CHAT, "--http1.0", "-d", ASKED))["object"] == "chat.completion"
    assert curl(CHAT, "--http1.0", "-N", "-d", STREAMED).stdout.endswith(b"data: [DONE]\n\n")
    head = curl("/v1/models", "-I").stdout
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")


def test_one_connection_serves_many_requests(served: Served, curl: Curl) -> None:
    again = ["-d", ASKED, "-w", "%{num_connects}\n", "-o", "/dev/null"]
    done = curl(CHAT, *again, served.url + CHAT, "-o", "/dev/null", served.url + CHAT, "-o", "/dev/null")
    assert done.stdout.split() == [b"1", b"0", b"0"]


@pytest.mark.parametrize("ways", [{"framing": "close"}, {"framing": "chunked"}, {"http10": True}, {"interim": [103]}])
def test_an_answer_arrives_whole_however_the_engine_frames_it(curl: Curl, ways: dict[str, object]) -> None:
    assert json_of(curl(CHAT, "-d", ASKED, headers=told(**ways)))["object"] == "chat.completion"
    assert curl(CHAT, "-N", "-d", STREAMED, headers=told(**ways)).stdout.endswith(b"data: [DONE]\n\n")


def test_an_answer_cut_short_is_told_to_the_caller(curl: Curl) -> None:
    assert curl(CHAT, "-d", ASKED, headers=told(cut="middle")).returncode == PARTIAL_FILE
    stream = curl(CHAT, "-N", "-d", STREAMED, headers=told(cut_events=2))
    assert b'"error"' in stream.stdout
    assert b"[DONE]" not in stream.stdout


def test_an_engine_that_hangs_up_before_its_answer_is_asked_again(served: Served, curl: Curl) -> None:
    headers = told(cut="before", first=1)
    assert json_of(curl(CHAT, "-d", ASKED, headers=headers))["object"] == "chat.completion"
    assert [seen["status"] for seen in served.course(headers["x-request-id"])] == [None, 200]


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_waits_as_long_as_it_is_told_to(served: Served, curl: Curl, status: int) -> None:
    headers = told(status=status, retry_after="2", first=1)
    began = time.monotonic()
    assert b"chat.completion" in curl(CHAT, "--retry", "2", "-d", ASKED, headers=headers).stdout
    assert 2 <= time.monotonic() - began < 15
    assert [seen["status"] for seen in served.course(headers["x-request-id"])] == [status, 200]


def test_a_call_that_times_out_frees_the_engine(served: Served, curl: Curl) -> None:
    headers = told(hang=True)
    assert curl(CHAT, "-d", ASKED, "--max-time", "0.5", headers=headers).returncode == TIMED_OUT
    until("the engine is told", lambda: [seen for seen in served.course(headers["x-request-id"]) if seen["left"]])


def test_an_error_names_who_failed(curl: Curl) -> None:
    done = curl(CHAT, "-d", json.dumps({"model": "nothing", "messages": []}), "-w", "\n%{http_code}")
    answer, status = done.stdout.rsplit(b"\n", 1)
    assert status == b"404"
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert b"told to answer 500" in curl(CHAT, "-d", ASKED, headers=told(status=500)).stdout

"""Every way to answer, as it looks on the wire."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from unit.services import conftest

if TYPE_CHECKING:
    from unit.services.conftest import Program

Faulty = Callable[..., "Program"]
CHAT = "/v1/chat/completions"
END = b"\r\n\r\n"


def request(ways: str = "", body: bytes = b"{}", *headers: str, path: str = CHAT) -> bytes:
    """A request, byte for byte."""
    lines = [f"POST {path} HTTP/1.1", "Host: engine", f"Content-Length: {len(body)}", *headers]
    if ways:
        lines.append(f"X-Faulty: {ways}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def talk(program: Program, *parts: bytes, until: bytes = b"") -> bytes:
    """Send, and return all that comes until the engine closes, or until it has said `until`."""
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        for part in parts:
            client.sendall(part)
        return heard(client, until)


def heard(client: socket.socket, until: bytes = b"") -> bytes:
    got = b""
    while not until or until not in got:
        piece = client.recv(65536)
        if not piece:
            assert not until, got
            break
        got += piece
    return got


def head_and_body(answer: bytes) -> tuple[list[str], bytes]:
    head, _, body = answer.partition(END)
    return head.decode("latin-1").split("\r\n"), body


def test_a_way_is_an_argument_and_a_header(faulty: Faulty) -> None:
    by_argument = faulty("--status", "503", "--retry-after", "2")
    by_header = faulty()
    given = ("status=503, retry-after=2", '{"status": 503, "retry_after": 2}')
    answers = [by_argument.post(CHAT), *(by_header.post(CHAT, headers={"x-faulty": text}) for text in given)]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["message"] == "told to answer 503"
    assert by_argument.post(CHAT, headers={"x-faulty": "status=429"}).status_code == 429
    assert by_header.post(CHAT).status_code == 200


@pytest.mark.parametrize("text", ["cheer", "cut=nowhere", "status=many", "{", '{"chunks": [1]} x'])
def test_a_way_that_does_not_exist_is_refused(faulty: Faulty, text: str) -> None:
    answer = faulty().post(CHAT, headers={"x-faulty": text})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("cannot read x-faulty: ")


def test_a_fault_can_hold_for_some_requests_only(faulty: Faulty) -> None:
    program = faulty()

    def statuses(ways: str, count: int) -> list[int]:
        return [program.post(CHAT, headers={"x-faulty": ways}).status_code for _ in range(count)]

    assert statuses("status=503, first=2", 4) == [503, 503, 200, 200]
    assert statuses("status=503, first=2, id=other", 3) == [503, 503, 200]
    assert statuses("status=500, every=2", 5) == [200, 500, 200, 500, 200]
    assert statuses("status=429, after=1, first=1", 3) == [200, 429, 200]
    started = faulty("--status", "429", "--first", "1")
    assert [started.post(CHAT).status_code for _ in range(2)] == [429, 200]


def test_the_end_of_a_body_is_told_in_three_ways(faulty: Faulty) -> None:
    program = faulty()
    head, sized = head_and_body(talk(program, request("close")))
    assert f"content-length: {len(sized)}" in head
    head, body = head_and_body(talk(program, request("framing=close")))
    assert not [line for line in head if line.startswith(("content-length", "transfer-encoding"))]
    assert "connection: close" in head
    assert json.loads(body)["object"] == "chat.completion"
    head, body = head_and_body(talk(program, request("framing=chunked, close")))
    assert "transfer-encoding: chunked" in head
    assert body.endswith(b"\r\n0\r\n\r\n")


def test_trailers_and_old_http_and_more_headers(faulty: Faulty) -> None:
    program = faulty()
    head, body = head_and_body(talk(program, request('{"trailers": ["X-Sum: 1", "X-More: 2"], "close": true}')))
    assert "trailer: X-Sum, X-More" in head
    assert body.endswith(b"\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n")
    head, _ = head_and_body(talk(program, request("http10")))
    assert head[0] == "HTTP/1.0 200 OK"
    assert not [line for line in head if line.startswith("transfer-encoding")]
    streamed = talk(program, request("http10", b'{"stream": true}'))
    assert streamed.endswith(b"data: [DONE]\n\n")
    head, _ = head_and_body(talk(program, request('{"headers": ["X-A: 1+2", "x-a: 3"], "close": true}')))
    assert head.index("X-A: 1+2") + 1 == head.index("x-a: 3")


def test_interim_answers_come_first(faulty: Faulty) -> None:
    got = talk(faulty(), request("interim=103+102, close"))
    assert re.findall(rb"HTTP/1.1 (\d+)", got) == [b"103", b"102", b"200"]


def test_an_answer_ends_where_it_is_told_to(faulty: Faulty) -> None:
    program = faulty()
    assert talk(program, request("cut=before")) == b""
    half = talk(program, request("cut=half-head"))
    assert half.startswith(b"HTTP/1.1 200")
    assert END not in half
    assert talk(program, request("cut=head")).endswith(END)
    head, body = head_and_body(talk(program, request("cut=7")))
    assert len(body) == 7
    assert next(int(line.split()[1]) for line in head if "content-length" in line) > 7
    _, body = head_and_body(talk(program, request("cut=7, framing=chunked")))
    size, _, begun = body.partition(b"\r\n")
    assert len(begun) == 7 < int(size, 16)
    stream = b'{"stream": true}'
    assert talk(program, request("cut-events=2", stream)).count(b"data: ") == 2
    assert talk(program, request("cut=middle", stream)).count(b"data: ") == 3
    assert len(head_and_body(talk(program, request("cut=middle")))[1]) > 50


def test_a_stream_can_end_in_an_error_or_too_early(faulty: Faulty) -> None:
    program = faulty()
    stream = b'{"stream": true}'
    got = talk(program, request("cut-events=2, cut-by=error, close", stream))
    assert (got.count(b"data: "), got.count(b'"error"'), b"[DONE]" in got) == (3, 1, False)
    assert got.endswith(b"\r\n0\r\n\r\n")
    got = talk(program, request("cut-events=2, cut-by=end, close", stream))
    assert (got.count(b"data: "), got.endswith(b"\r\n0\r\n\r\n")) == (2, True)
    messages = b'{"stream": true, "max_tokens": 1}'
    got = talk(program, request("cut-events=3, cut-by=error, close", messages, path="/v1/messages"))
    assert b'event: error\ndata: {"type": "error"' in got


def test_an_answer_can_end_in_a_reset_or_a_crash(faulty: Faulty) -> None:
    program = faulty()
    with pytest.raises(ConnectionResetError):
        talk(program, request("cut=head, cut-by=reset"))
    talk(program, request("cut=9, cut-by=crash"))
    assert program.process.wait(10) == 1
    assert program.lines()[-1] == "RuntimeError: told to crash after 9 bytes of the body"


def test_an_answer_can_be_slow(faulty: Faulty) -> None:
    program = faulty()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        client.sendall(request("byte-delay=0.001, close"))
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
    assert len(pieces) > 100
    assert time.monotonic() - began > 0.1
    began = time.monotonic()
    talk(program, request("body-delay=0.1, chunk-delay=0.05, close", b'{"stream": true}'))
    assert time.monotonic() - began > 0.3


def test_garbage_of_every_kind(faulty: Faulty) -> None:
    program = faulty()
    assert not talk(program, request("garbage=http")).startswith(b"HTTP")
    for kind in ("chunk", "lengths", "header"):
        with pytest.raises(httpx.RemoteProtocolError):
            program.post(CHAT, headers={"x-faulty": f"garbage={kind}"})
    assert "data: {broken\n" in program.post(CHAT, {"stream": True}, headers={"x-faulty": "garbage=event"}).text
    assert len(talk(program, request("huge-head=64KiB, close")).partition(END)[0]) > 65536


def test_an_endless_body_waits_for_its_reader(faulty: Faulty) -> None:
    program = faulty()
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        client.sendall(request("endless"))
        heard(client, until=b"." * 1000)

        def sent() -> int:
            count: int = course(program)["sent_bytes"]
            return count

        conftest.until(lambda: sent() == sent())  # it stands still: nobody reads
        assert sent() < 32 << 20
    conftest.until(lambda: course(program)["left"] is not None)


def course(program: Program) -> dict[str, Any]:
    """What became of the last request."""
    last: dict[str, Any] = program.get("/faulty/left").json()["requests"][-1]
    return last


def test_a_body_can_be_left_unread(faulty: Faulty) -> None:
    program = faulty()
    got = talk(program, request("read=never, status=413", b"x" * 50_000))
    assert got.startswith(b"HTTP/1.1 413")
    assert course(program)["received_bytes"] == 0
    late = request("read=late", b"x" * 50_000)
    head, body = late[:-50_000], late[-50_000:]
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        client.sendall(head)
        assert heard(client, until=b'"unread"')
        client.sendall(body + request("close"))
        assert b"chat.completion" in heard(client)


def test_a_body_that_is_never_read_stays_with_the_client(faulty: Faulty) -> None:
    program = faulty()
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        client.sendall(request("read=never, hang", bytes(64 << 20))[:1000])
        conftest.until(lambda: program.get("/faulty/left").json()["in_flight"] == 1)
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(32 << 20))


def test_a_body_can_be_read_slowly(faulty: Faulty) -> None:
    program = faulty()
    began = time.monotonic()
    talk(program, request("read-delay=0.02, read-size=1000, close", b'{"a": "' + b"x" * 9000 + b'"}'))
    assert time.monotonic() - began > 0.15


def test_what_is_expected_is_continued_ignored_or_refused(faulty: Faulty) -> None:
    program = faulty()
    expect = "Expect: 100-continue"
    assert talk(program, request("close", b"{}", expect)).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert talk(program, request("close, expect=ignore", b"{}", expect)).startswith(b"HTTP/1.1 200")
    assert talk(program, request("expect=refuse", b"{}", expect)[:-2]).startswith(b"HTTP/1.1 417")


def test_an_idle_connection_is_closed_or_stale(faulty: Faulty) -> None:
    program = faulty()
    began = time.monotonic()
    assert b"200 OK" in talk(program, request("idle-close=0.1"))
    assert 0.09 < time.monotonic() - began < 5
    with socket.create_connection(("127.0.0.1", program.port), 10) as client:
        client.sendall(request("stale"))
        heard(client, until=b'"usage"')
        client.sendall(request())
        assert b"HTTP/" not in heard(client)


def test_it_tells_when_a_caller_left(faulty: Faulty) -> None:
    program = faulty()
    for ways, body in (("hang", b"{}"), ("chunk-delay=10", b'{"stream": true}'), ("read=never, hang", b"x" * 90_000)):
        with socket.create_connection(("127.0.0.1", program.port), 10) as client:
            client.sendall(request(ways, body, "X-Request-Id: r1"))
            conftest.until(lambda: program.get("/faulty/left").json()["in_flight"] == 1)
            closed = time.monotonic()
        conftest.until(lambda: course(program)["left"] is not None)
        told = course(program)
        assert 0 <= told["left"]["monotonic_ms"] - closed * 1000 < 1000
        assert told["began"]["monotonic_ms"] < told["left"]["monotonic_ms"]
        assert abs(told["left"]["unix_ms"] - time.time() * 1000) < 10_000
        assert told["request_id"] == "r1"
    assert program.get("/faulty/left").json()["left"] == 3
    talk(program, request("close"))
    assert course(program)["left"] is None
    assert course(program)["ended"]["monotonic_ms"] >= course(program)["first_byte"]["monotonic_ms"]


def test_it_tells_when_a_caller_left_within_its_body(faulty: Faulty) -> None:
    program = faulty()
    talk_and_leave = socket.create_connection(("127.0.0.1", program.port), 10)
    talk_and_leave.sendall(request("", b"x" * 1000)[:-1])
    conftest.until(lambda: program.get("/faulty/left").json()["in_flight"] == 1)
    talk_and_leave.close()
    conftest.until(lambda: course(program)["left"] is not None)
    assert course(program)["received_bytes"] == 999
    assert program.get("/faulty/requests").json()["requests"][-1]["body_is_whole"] is False


def test_requests_are_shown_as_they_came(faulty: Faulty) -> None:
    program = faulty()
    body = b'{"model": "\xff\xc3\xa9",  "a": 1, "a": 2}'
    talk(program, request("status=500, close", body, "X-ODD:  a  b ", "x-odd: c"))
    (shown,) = program.get("/faulty/requests").json()["requests"]
    assert (shown["method"], shown["path"]) == ("POST", CHAT)
    assert shown["headers"][2:4] == [["X-ODD", "a  b"], ["x-odd", "c"]]
    assert base64.b64decode(shown["body_base64"]) == body
    large = b"x" * (1 << 21)
    talk(program, request("status=500, close", large))
    shown = program.get("/faulty/requests").json()["requests"][-1]
    assert (shown["body_base64"], shown["body_size"]) == (None, 1 << 21)
    assert shown["body_sha256"] == hashlib.sha256(large).hexdigest()
    assert [one["number"] for one in program.get("/faulty/left?last=1").json()["requests"]] == [2]


def test_the_bodies_that_are_remembered_take_bounded_memory(faulty: Faulty) -> None:
    program = faulty()
    for _ in range(70):
        assert program.post(CHAT, b"x" * (1 << 20), headers={"x-faulty": "status=500"}).status_code == 500
    shown = program.get("/faulty/requests").json()["requests"]
    assert [one["number"] for one in shown if one["body_base64"] is None] == list(range(1, 7))
    assert {one["body_size"] for one in shown} == {1 << 20}


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /x HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA : b\r\n\r\n",
        b"POST /x y HTTP/1.1\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_a_request_that_breaks_the_rules_is_refused_and_counted(faulty: Faulty, raw: bytes) -> None:
    program = faulty()
    assert talk(program, raw).startswith(b"HTTP/1.1 400")
    shown = program.get("/faulty/requests").json()
    assert shown["malformed"] == 1
    assert shown["requests"][-1]["malformed"]


def test_a_large_upload_does_not_hold_it(faulty: Faulty) -> None:
    program = faulty()
    boundary = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    size = 48 << 20
    body = boundary + bytes(size) + b"\r\n--b--\r\n"
    told = request("close", body, "Content-Type: multipart/form-data; boundary=b", path="/v1/audio/transcriptions")
    with socket.create_connection(("127.0.0.1", program.port), 30) as client:
        client.sendall(told[: len(told) // 2])
        assert httpx.get(f"{program.url}/health", timeout=2).status_code == 200
        client.sendall(told[len(told) // 2 :])
        answer = heard(client)
    text = json.loads(answer.partition(END)[2])["text"]
    assert text == f"a.wav of {size} bytes, sha256 {hashlib.sha256(bytes(size)).hexdigest()}"

"""Bodies and streams of every kind pass through as they are, in bounded memory. What the worker takes is printed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from e2e.daemon import Daemon, faulty, serving, until
from e2e.raw import Answered, Raw, calling, chat, head
from e2e.seen import Engines, told

CHAT = "/v1/chat/completions"
UPLOAD = "/v1/audio/transcriptions"
MIB = 1 << 20
SLACK_BYTES = 40 * MIB  # of memory, beside what the worker had
Memory = dict[str, tuple[float, float]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("streams"), {"a": faulty(scaling={"min": 1})}) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def engines(daemon: Daemon) -> Engines:
    return Engines(daemon, "a")


@pytest.fixture(scope="module")
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    """What was measured, by case; printed at the end, also where the tests' output is captured."""
    measured: Memory = {}
    yield measured
    rows = [f"{'resident memory of the worker, MB':52} {'before':>8} {'most':>8}"]
    rows += [f"{case:52} {before / 1e6:8.1f} {most / 1e6:8.1f}" for case, (before, most) in measured.items()]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        sys.stdout.write("\n\n" + "\n".join(rows) + "\n")


class Watched:
    """The most memory that the worker has had while a block ran."""

    def __init__(self, daemon: Daemon) -> None:
        (self._worker,) = daemon.workers()
        self.before = self.most = self._rss()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.most = max(self.most, self._rss())

    def _rss(self) -> int:
        rss: int = psutil.Process(self._worker.pid).memory_info().rss
        return rss


# Answers, in every framing.


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", ["sized", "chunked", "close"])
@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_arrives_whole_however_it_is_framed(
    daemon: Daemon, version: str, framing: str, streams: bool
) -> None:
    with calling(daemon) as raw:
        ways = told(framing=framing, chunks=20)
        raw.post(CHAT, chat("a", stream=streams), ways, version=version)
        answered = raw.answer()
        assert (answered.status, answered.is_whole) == (200, True)
        assert b"word19" in answered.body
        if version == "1.0":
            assert "transfer-encoding" not in answered.headers
            assert raw.rest() == b""  # closed, as nothing else was asked for
        else:
            assert_usable(raw)
    if streams:
        assert answered.body.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(answered.body)["object"] == "chat.completion"


def test_a_caller_of_http_1_0_may_keep_its_connection(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        for _ in range(2):
            raw.post(CHAT, chat("a"), {"connection": "keep-alive"}, version="1.0")
            answered = raw.answer()
            assert (answered.status, answered.headers["connection"]) == (200, "keep-alive")


def test_an_engine_of_http_1_0_is_understood(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        for streams in (False, True):
            raw.post(CHAT, chat("a", stream=streams), told(http10=True, chunks=5))
            answered = raw.answer()
            assert (answered.status, answered.is_whole) == (200, True)
            assert b"word4" in answered.body


def test_what_an_engine_says_before_and_after_its_answer_does_no_harm(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        raw.post(CHAT, chat("a"), told(interim="103+102", trailers=["x-checksum: 5", "x-more: 6"]))
        answered = raw.answer()
        assert (answered.status, answered.is_whole, answered.interim) == (200, True, [])
        assert "x-checksum" not in answered.headers
        assert_usable(raw)


def test_an_answer_that_comes_byte_by_byte_arrives(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        raw.post(CHAT, chat("a", stream=True), told(byte_delay=0.0002, chunks=3))
        answered = raw.answer()
    assert answered.is_whole
    assert answered.body.endswith(b"data: [DONE]\n\n")


def test_each_event_is_passed_on_when_it_comes(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        raw.post(CHAT, chat("a", stream=True), told(chunk_delay=0.1, chunks=4))
        raw.until(b"word1")
        begun = time.monotonic()
        raw.until(b"[DONE]")
        assert time.monotonic() - begun > 0.25  # word2, word3, the end and [DONE] were still to come


# Requests.


def test_pipelined_requests_are_answered_in_order(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        for number in range(30):
            raw.post(CHAT, chat("a", stream=number % 3 == 0), told(delay=0.02 if number % 2 else 0, chunks=number + 1))
            raw.get("/v1/models")
        for number in range(30):
            answered = raw.answer()
            assert answered.is_whole
            assert f"word{number}" in answered.body.decode() or number == 0
            assert f"word{number + 1}" not in answered.body.decode()
            assert raw.answer().json()["object"] == "list"


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/a"])
def test_head_is_answered_as_get_without_a_body(daemon: Daemon, path: str) -> None:
    with calling(daemon) as raw:
        raw.get(path)
        whole = raw.answer()
        raw.get(path, method="HEAD")
        answered = raw.answer(to_head=True)
        assert (answered.status, answered.headers["content-type"]) == (200, whole.headers["content-type"])
        assert answered.headers["content-length"] == whole.headers["content-length"]
        assert_usable(raw)


def test_head_of_what_an_engine_made_is_answered_without_a_body(daemon: Daemon) -> None:
    with daemon.client() as client:
        made = client.post("/v1/responses", json={"model": "a", "input": "hello"}).json()["id"]
    with calling(daemon) as raw:
        raw.get(f"/v1/responses/{made}", method="HEAD")
        answered = raw.answer(to_head=True)
        assert answered.status == 200
        assert int(answered.headers["content-length"]) > 100
        assert_usable(raw)


def test_who_asks_whether_to_send_a_body_is_told_to(daemon: Daemon) -> None:
    body = chat("a")
    with calling(daemon) as raw:
        raw.send(head("POST", CHAT, {"expect": "100-continue", "content-length": str(len(body))}))
        assert raw.read_head().status == 100
        raw.send(body)
        assert raw.answer().status == 200


def test_who_asks_whether_to_send_what_is_too_much_is_not_told_to(daemon: Daemon) -> None:
    with calling(daemon) as raw:
        raw.send(head("POST", CHAT, {"expect": "100-continue", "content-length": str(1 << 40)}))
        assert raw.answer().interim == []
        assert raw.rest() == b""


@pytest.mark.parametrize("size", [1, 700, 100_000])
def test_a_chunked_request_with_trailers_arrives_as_it_was(daemon: Daemon, engines: Engines, size: int) -> None:
    body = chat("a", padding="é🦉" * 5000)
    headers = told(echo=True)
    with calling(daemon) as raw:
        raw.send(head("POST", CHAT, {"transfer-encoding": "chunked", **headers}))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        raw.send(b"".join(b"%x;odd=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
        raw.send(b"0\r\nx-trailer: 1\r\n\r\n")
        assert raw.answer().status == 200
        assert_usable(raw)
    (received,) = engines.received(headers)
    assert received["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert received["malformed"] is None


def assert_usable(raw: Raw) -> None:
    """Its connection carries another request."""
    raw.post(CHAT, chat("a"))
    answered = raw.answer()
    assert (answered.status, answered.is_whole) == (200, True)


# In bounded memory.


class Sent:
    """A form of two parts, sent piece by piece while its digest is taken."""

    def __init__(self, file_bytes: int, *, model_first: bool) -> None:
        model = b'--b0\r\ncontent-disposition: form-data; name="model"\r\n\r\na\r\n'
        before = b'--b0\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        self._first = model + before if model_first else before
        self._last = b"\r\n--b0--\r\n" if model_first else b"\r\n" + model + b"--b0--\r\n"
        self._pieces = file_bytes // MIB
        self.size = len(self._first) + self._pieces * MIB + len(self._last)
        self.digest = hashlib.sha256()

    def send(self, raw: Raw, headers: dict[str, str]) -> Answered:
        kind = {"content-type": "multipart/form-data; boundary=b0", "content-length": str(self.size)}
        raw.send(head("POST", UPLOAD, kind | headers))
        piece = bytes(range(256)) * (MIB // 256)
        for part in (self._first, *(piece for _ in range(self._pieces)), self._last):
            raw.send(part)
            self.digest.update(part)
        return raw.answer()


@pytest.mark.parametrize("model_first", [True, False])
def test_an_upload_of_200_mb_is_not_held(daemon: Daemon, engines: Engines, memory: Memory, model_first: bool) -> None:
    sent, headers = Sent(200 * MIB, model_first=model_first), told()
    with Watched(daemon) as watched, calling(daemon) as raw:
        answered = sent.send(raw, headers)
    assert answered.status == 200, answered.body
    assert str(200 * MIB) in answered.json()["text"]
    (received,) = engines.received(headers)
    assert (received["body_size"], received["body_sha256"]) == (sent.size, sent.digest.hexdigest())
    check(memory, f"an upload of 200 MB, its model {'first' if model_first else 'last'}", watched)


def test_an_engine_that_reads_slowly_slows_its_upload(daemon: Daemon, engines: Engines, memory: Memory) -> None:
    sent, headers = Sent(64 * MIB, model_first=True), told(read_delay=0.002)
    with Watched(daemon) as watched, calling(daemon) as raw:
        begun = time.monotonic()
        assert sent.send(raw, headers).status == 200
        assert time.monotonic() - begun > 1
    check(memory, "an upload of 64 MB to an engine that reads slowly", watched)


def test_a_body_without_end_waits_for_a_caller_who_does_not_read(
    daemon: Daemon, engines: Engines, memory: Memory
) -> None:
    with Watched(daemon) as watched, contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(4):
            headers = told(endless=True, chunks=1)
            raw = stack.enter_context(calling(daemon, receive_buffer=64 << 10))
            raw.post(CHAT, chat("a", stream=True), headers)
            waiting.append((raw, headers))
        until("the engine can't send more", _stands_still(engines, waiting[-1][1]))
        for raw, _ in waiting:
            assert len(raw.take(16 * MIB)) == 16 * MIB  # it goes on where it is read
        until("it stands still again", _stands_still(engines, waiting[-1][1]))
    for _, headers in waiting:  # and each who left without reading the rest was noticed
        engines.until_one(headers, lambda course: course["left"])
    check(memory, "4 endless answers, read in part", watched)


def test_a_caller_who_reads_slowly_gets_everything(daemon: Daemon, engines: Engines, memory: Memory) -> None:
    headers = told(chunks=64, chunk_size="1MiB")
    with Watched(daemon) as watched, calling(daemon, receive_buffer=64 << 10) as raw:
        raw.post(CHAT, chat("a", stream=True), headers)
        until("the engine can't send more", _stands_still(engines, headers))
        answered = raw.answer()
    assert answered.is_whole
    assert len(answered.body) > 64 * MIB
    assert answered.body.endswith(b"data: [DONE]\n\n")
    check(memory, "a stream of 64 MB to a caller who reads late", watched)


def check(memory: Memory, case: str, watched: Watched) -> None:
    memory[case] = watched.before, watched.most
    assert watched.most < watched.before + SLACK_BYTES


def _stands_still(engines: Engines, headers: dict[str, str]) -> Callable[[], bool]:
    """Whether the engine has sent something, and no more of it than the last time."""
    sent: list[int] = []

    def look() -> bool:
        courses: list[dict[str, Any]] = engines.courses(headers)
        sent.append(courses[0]["sent_bytes"] if courses else 0)
        return len(sent) > 5 and sent[-1] > 0 and len(set(sent[-5:])) == 1

    return look

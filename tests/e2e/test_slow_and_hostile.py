"""Hostile and slow callers, at a real daemon: refused, in bounded memory, and nobody else notices them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import psutil
import pytest

from e2e.daemon import Daemon, faulty, serving
from e2e.raw import Raw, calling, chat, head
from e2e.seen import Engines, told

CHAT = "/v1/chat/completions"
MIB = 1 << 20
CONNECTIONS = 300
START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
BODY = chat("a")
INNER = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-smuggled: 1\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    models = {"a": faulty(scaling={"min": 1})}
    with serving(tmp_path_factory.mktemp("hostile"), models, body="1MiB", connections=CONNECTIONS) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def engines(daemon: Daemon) -> Engines:
    return Engines(daemon, "a")


def posts(engines: Engines) -> int:
    """How many requests the engine has had."""
    (page,) = engines.pages("left", 1)
    assert page["malformed"] == 0  # no engine gets what is no request
    return int(page["posts"])


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (START + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
        (START + b"content-length: 5\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY, 400),
        (START + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
        (START + b"x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
        (START + b"x: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + INNER, 400),
        (START + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + INNER, 400),
        (START + b"transfer-encoding: chunked\r\n\r\n5 \r\nabcdefg" + INNER, 400),
        (START + b"x: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (START + b"".join(b"x-%d: y\r\n" % number for number in range(5000)) + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10, 400),
        (START + b"content-length: %d\r\n\r\n" % (2 * MIB), 413),
    ],
    ids=[
        *("both lengths", "two lengths", "a space before the colon", "a folded line", "a bare CR", "a chunk too large"),
        *("a chunk longer than told", "a header too large", "too many headers", "TLS", "a body too large"),
    ],
)
def test_it_is_refused_once_and_reaches_no_engine(
    daemon: Daemon, engines: Engines, request_: bytes, status: int
) -> None:
    before = posts(engines)
    with calling(daemon) as raw:
        with contextlib.suppress(ConnectionError):
            raw.send(request_)
        answered = raw.answer()
        assert (answered.status, answered.headers["connection"]) == (status, "close")
        assert answered.json()["error"]["type"] == "invalid_request_error"
        assert raw.rest() == b""  # nothing of what follows is answered
    assert posts(engines) == before


def test_a_body_without_end_is_refused_at_its_limit_in_bounded_memory(daemon: Daemon, engines: Engines) -> None:
    before, rss = posts(engines), _rss(daemon)
    with calling(daemon) as raw:
        raw.send(head("POST", CHAT, {"transfer-encoding": "chunked"}))
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                raw.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
        assert _rss(daemon) < rss + 20 * MIB
    assert posts(engines) == before


def test_too_many_connections_are_turned_away_and_slow_ones_harm_nobody(daemon: Daemon) -> None:
    """Callers that send a byte now and then, as many as may be: they take little, and others are served."""
    rss = _rss(daemon)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(calling(daemon)) for _ in range(CONNECTIONS - 10)]
        half = len(BODY) // 2
        for number, raw in enumerate(slow):
            begun = START + b"content-length: %d\r\n\r\n" % len(BODY) + BODY[:half]
            raw.send(begun[: 20 + number])
        with daemon.client() as client:
            took_s = []
            for _ in range(20):
                begun_at = time.monotonic()
                assert client.post(CHAT, content=BODY).status_code == 200
                took_s.append(time.monotonic() - begun_at)
                for raw in slow[:100]:
                    raw.send(b"x")
            assert sorted(took_s)[10] < 0.1
        rest = [stack.enter_context(calling(daemon)) for _ in range(20)]
        statuses = [_refused(raw) for raw in rest]
        assert statuses[-1] == 503
        assert _rss(daemon) < rss + 20 * MIB
    with calling(daemon) as raw:  # they have gone: there is room again
        raw.post(CHAT, BODY)
        assert raw.answer().status == 200


def test_a_request_that_comes_byte_by_byte_is_served(daemon: Daemon, engines: Engines) -> None:
    headers = told(echo=True)
    with calling(daemon) as raw:
        for byte in head("POST", CHAT, {"content-length": str(len(BODY)), **headers}) + BODY:
            raw.send(bytes([byte]))
        answered = raw.answer()
    assert (answered.status, answered.json()["body"]) == (200, BODY.decode())


def test_who_pipelines_without_reading_is_dropped_in_bounded_memory(daemon: Daemon) -> None:
    rss = _rss(daemon)
    with calling(daemon, receive_buffer=4096) as raw:
        raw.socket.settimeout(2)
        with pytest.raises((ConnectionError, TimeoutError)):
            _send_ever_more(raw)
        assert _rss(daemon) < rss + 40 * MIB
    with calling(daemon) as raw:
        raw.post(CHAT, BODY)
        assert raw.answer().status == 200


@pytest.mark.parametrize(
    "path", ["/v1/../admin", "/faulty/requests", "/v1/load_lora_adapter", "/health/../faulty/left"]
)
def test_paths_outside_the_table_never_reach_an_engine(daemon: Daemon, engines: Engines, path: str) -> None:
    before = posts(engines)
    for method in ("GET", "POST"):
        with calling(daemon) as raw:
            raw.send(head(method, path, {"content-length": str(len(BODY))}) + BODY)
            answered = raw.answer()
            assert answered.status == 404
            assert json.loads(answered.body)["error"]["code"] == "not_found"
    assert posts(engines) == before


def _send_ever_more(raw: Raw) -> None:
    for _ in range(20_000):
        raw.post(CHAT, BODY, told(chunk_size="64KiB", chunks=4))


def _refused(raw: Raw) -> int:
    """The status that it gets unasked; 0 where it is let in."""
    raw.socket.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        return raw.answer().status
    return 0


def _rss(daemon: Daemon) -> int:
    (worker,) = daemon.workers()
    rss: int = psutil.Process(worker.pid).memory_info().rss
    return rss

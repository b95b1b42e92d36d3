"""A caller that goes away takes its request with it: the engine sees that within 50 ms. The figures are printed."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.daemon import Daemon, faulty, serving, until
from e2e.raw import PATIENCE_S, Raw, Way, calling, chat, head
from e2e.seen import Engines, told

PROMISE_MS = 50.0  # what half of all callers see, or better; the machine may be loaded
LONGEST_MS = 1000.0
TRIES = 20
UPLOAD = "/v1/audio/transcriptions"
FORM = (
    b'--b0\r\ncontent-disposition: form-data; name="model"\r\n\r\na\r\n'
    b'--b0\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
)
SOCKET = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}

Begin = Callable[[Raw, dict[str, str]], None]
Figures = dict[str, list[float]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    models = {
        "a": faulty("--chunk-delay", "0.01", "--chunks", "5000", scaling={"min": 1}),
        "cold": faulty("--start-delay", "3600", start_timeout="1h", limits={"queue": 1}),
    }
    with serving(tmp_path_factory.mktemp("leaving"), models) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def engines(daemon: Daemon) -> Engines:
    return Engines(daemon, "a")


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What was measured, by case; printed at the end, also where the tests' output is captured."""
    measured: Figures = {}
    yield measured
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        sys.stdout.write(f"\n\n{table(measured)}\n")


def table(measured: Figures) -> str:
    """From a caller's leaving until the engine sees its connection closed."""
    rows = [f"{'ms until the engine sees it, over loopback':52} {'tries':>5} {'min':>7} {'median':>7} {'max':>7}"]
    for case, taken in measured.items():
        numbers = " ".join(f"{number:7.1f}" for number in (min(taken), statistics.median(taken), max(taken)))
        rows.append(f"{case:52} {len(taken):5} {numbers}")
    return "\n".join(rows)


# How a request begins; each returns once the engine is where it should be when the caller leaves.


def plain(raw: Raw, headers: dict[str, str]) -> None:
    raw.post("/v1/chat/completions", chat("a"), headers)


def stream(raw: Raw, headers: dict[str, str]) -> None:
    raw.post("/v1/chat/completions", chat("a", stream=True), headers)


def middle(raw: Raw, headers: dict[str, str]) -> None:
    stream(raw, headers)
    raw.until(b"word2")


def still(raw: Raw, headers: dict[str, str]) -> None:
    stream(raw, headers)
    raw.until(b"\n\n")


def text_middle(raw: Raw, headers: dict[str, str]) -> None:
    raw.post("/v1/chat/a?stream=true", b"hello", headers)
    raw.until(b"word2")


def by_id(raw: Raw, headers: dict[str, str]) -> None:
    raw.get("/v1/responses/resp_1", headers)


def ahead(raw: Raw, headers: dict[str, str]) -> None:
    request = head("POST", "/v1/chat/completions", {"content-length": str(len(chat("a"))), **headers}) + chat("a")
    raw.send(request + request)


def uploading(raw: Raw, headers: dict[str, str]) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b0", "content-length": str(1 << 30)}
    raw.send(head("POST", UPLOAD, kind | headers) + FORM + bytes(1 << 20))


def unread(raw: Raw, headers: dict[str, str]) -> None:
    uploading(raw, headers)
    raw.socket.settimeout(0.15)
    with contextlib.suppress(TimeoutError):  # until nobody takes more
        while True:
            raw.send(bytes(1 << 20))


def unread_but_reading(raw: Raw, headers: dict[str, str]) -> None:
    unread(raw, headers)
    raw.socket.settimeout(PATIENCE_S)
    raw.until(b"100 Continue\r\n\r\n")


def unread_but_all_taken(raw: Raw, headers: dict[str, str]) -> None:
    uploading(raw, headers)
    poll = select.poll()
    poll.register(raw.socket, select.POLLIN)
    while not poll.poll(20):  # slowly, so that little of it comes after the gateway has ceased to read
        raw.send(bytes(64 << 10))
    raw.until(b"100 Continue\r\n\r\n")


def session(raw: Raw, headers: dict[str, str]) -> None:
    opening(raw, headers)
    assert raw.answer().status == 101
    raw.until(b"session.created")


def opening(raw: Raw, headers: dict[str, str]) -> None:
    raw.get("/v1/realtime?model=a", SOCKET | headers)


HANG: dict[str, Any] = {"hang": True}
CASES: dict[str, tuple[Begin, dict[str, Any], tuple[Way, ...]]] = {
    "a request without a byte of an answer": (plain, HANG, tuple(Way)),
    "a stream without a byte of it": (stream, HANG, tuple(Way)),
    "a stream, in the middle": (middle, {}, tuple(Way)),
    "a stream that stands still for 150 ms": (still, {"chunk_delay": 0.15}, (Way.CLOSE,)),
    "a stream as plain text, in the middle": (text_middle, {}, (Way.CLOSE,)),
    "a request by an id": (by_id, HANG, (Way.CLOSE,)),
    "a request with another one sent behind it": (ahead, HANG, (Way.CLOSE, Way.RESET)),
    "an upload, in the middle": (uploading, {}, tuple(Way)),
    "a WebSocket's session": (session, {}, tuple(Way)),
    "a WebSocket that isn't open yet": (opening, HANG, (Way.CLOSE,)),
}


@pytest.mark.parametrize(("case", "way"), [(case, way) for case, (_, _, ways) in CASES.items() for way in ways])
def test_the_engine_sees_at_once_that_a_caller_leaves(
    daemon: Daemon, engines: Engines, figures: Figures, case: str, way: Way
) -> None:
    begin, ways, _ = CASES[case]
    taken_ms = [one_departure(daemon, engines, begin, ways, way) for _ in range(TRIES)]
    check(figures, f"{case} {way}", taken_ms)


UNREAD = {"read": "late", "delay": 600}


@pytest.mark.parametrize("way", list(Way))
def test_the_engine_sees_at_once_that_an_upload_which_it_does_not_read_is_left(
    daemon: Daemon, engines: Engines, figures: Figures, way: Way
) -> None:
    """The caller has a sign of life unread, so its end is a reset, which waits for nothing."""
    taken_ms = [one_departure(daemon, engines, unread, UNREAD, way) for _ in range(TRIES // 4)]
    check(figures, f"an upload that the engine doesn't read {way}", taken_ms)


def test_the_engine_sees_at_once_that_an_upload_is_left_of_which_all_that_was_sent_has_come(
    daemon: Daemon, engines: Engines, figures: Figures
) -> None:
    """The caller's end is known here, if not read: it is asked for at once."""
    taken_ms = [one_departure(daemon, engines, unread_but_all_taken, UNREAD, Way.CLOSE) for _ in range(3)]
    check(figures, "the same, of a caller that reads, and all came", taken_ms)


def test_the_engine_sees_soon_that_an_upload_is_left_whose_caller_read_all_that_came(
    daemon: Daemon, engines: Engines, figures: Figures
) -> None:
    """Its end stands behind what isn't read of it: it is asked for, now and then."""
    taken_ms = [one_departure(daemon, engines, unread_but_reading, UNREAD, way) for way in Way]
    figures["the same, of a caller that reads"] = taken_ms
    assert max(taken_ms) < LONGEST_MS, taken_ms


def one_departure(daemon: Daemon, engines: Engines, begin: Begin, ways: dict[str, Any], way: Way) -> float:
    headers = told(**ways)
    raw = Raw(daemon.port)
    begin(raw, headers)
    engines.until_one(headers, lambda course: course["ended"] is None)
    left = raw.leave(way)
    course = engines.until_one(headers, lambda course: course["left"])
    taken_ms: float = course["left"]["monotonic_ms"] - left * 1000
    return taken_ms


def check(figures: Figures, case: str, taken_ms: list[float]) -> None:
    figures[case] = taken_ms
    assert statistics.median(taken_ms) < PROMISE_MS, taken_ms
    assert max(taken_ms) < LONGEST_MS, taken_ms


@pytest.mark.parametrize("way", list(Way))
def test_who_leaves_while_it_waits_for_a_cold_model_gives_its_place_away(
    daemon: Daemon, figures: Figures, way: Way
) -> None:
    """No engine is there to see it. But the line has one place, and so another caller gets it."""
    taken_ms = []
    for _ in range(TRIES // 4):
        first = Raw(daemon.port)
        until("the place of the last one is free", lambda: waits(first))  # noqa: B023
        with calling(daemon) as second:
            assert not waits(second)
            left = asked = first.leave(way)
            while not waits(second):
                asked = time.monotonic()
            taken_ms.append((asked - left) * 1000)
    check(figures, f"a request that waits for a cold model {way}", taken_ms)


def waits(raw: Raw) -> bool:
    """Whether it has got the one place in the line; else it is refused at once."""
    raw.post("/v1/chat/completions", chat("cold"))
    raw.socket.settimeout(0.15)
    try:
        answered = raw.answer()
    except TimeoutError:
        return True
    assert (answered.status, answered.json()["error"]["code"]) == (503, "queue_full")
    return False


# Who sends no more has not left.


@pytest.mark.parametrize("streams", [False, True])
def test_who_only_closes_its_sending_side_gets_its_whole_answer(
    daemon: Daemon, engines: Engines, streams: bool
) -> None:
    headers = told(delay=0.5, chunks=20)
    with calling(daemon) as raw:
        raw.post("/v1/chat/completions", chat("a", stream=streams), headers)
        raw.socket.shutdown(socket.SHUT_WR)
        answered = raw.answer()
        assert raw.rest() == b""  # and then the connection ends
    assert (answered.status, answered.is_whole) == (200, True)
    assert b"word19" in answered.body
    assert answered.body.endswith(b"data: [DONE]\n\n") is streams
    assert [course["left"] for course in engines.courses(headers)] == [None]


def test_who_closes_its_sending_side_in_the_midst_of_an_answer_that_flows_gets_the_rest(
    daemon: Daemon, engines: Engines
) -> None:
    headers = told(chunk_size="64KiB", chunks=200, chunk_delay=0)
    with calling(daemon, receive_buffer=64 << 10) as raw:
        raw.post("/v1/chat/completions", chat("a", stream=True), headers)
        first = raw.until(b"word1")
        raw.socket.shutdown(socket.SHUT_WR)
        whole = first + raw.rest()
    assert b"word199" in whole
    assert whole.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert [course["left"] for course in engines.courses(headers)] == [None]


def test_who_sent_its_upload_and_closes_its_sending_side_gets_its_whole_answer(
    daemon: Daemon, engines: Engines
) -> None:
    headers = told(delay=0.5)
    body = FORM + bytes(1 << 20) + b"\r\n--b0--\r\n"
    with calling(daemon) as raw:
        raw.post(UPLOAD, body, {"content-type": "multipart/form-data; boundary=b0", **headers})
        raw.socket.shutdown(socket.SHUT_WR)
        answered = raw.answer()
    assert (answered.status, answered.is_whole) == (200, True)
    assert str(1 << 20) in json.loads(answered.body)["text"]
    assert [course["left"] for course in engines.courses(headers)] == [None]


def test_nothing_is_left_in_flight_of_those_who_left(daemon: Daemon, engines: Engines) -> None:
    (page,) = engines.pages("left", 1)
    assert page["in_flight"] == 0
    assert page["malformed"] == 0

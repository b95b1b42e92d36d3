"""Heads that were seen before aren't parsed again, and nobody can tell by what comes back."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import closing
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.callers import Service, Wire, options
from modelgrid.gateway import answers, upstream
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.connection import ClientConnection
from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.exchange import EngineHead, Loss
from modelgrid.gateway.heads import Heads
from modelgrid.gateway.request import Head
from modelgrid.gateway.upstream import Pool, Upstream
from modelgrid.spec import AccessKey
from unit.gateway.world import Play, World, route

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
ANN = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-ann").hexdigest())
BOB = AccessKey(id="2", name="bob", sha256=hashlib.sha256(b"mg-bob").hexdigest())
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer mg-ann\r\nContent-Length: "


def remembered(data: bytes, length: int | None) -> Heads[str]:
    heads: Heads[str] = Heads(16, 4096)
    heads.remember(data, "it", length)
    return heads


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length"])
def test_a_head_is_found_again_whatever_its_length(name: bytes) -> None:
    head = b"POST /x HTTP/1.1\r\n%b: %b\r\nA: b\r\n\r\n"
    heads = remembered(head % (name, b"12") + b"x" * 12, 12)
    for digits in (b"12", b"7", b"0", b"007", b"999999999999999"):
        data = head % (name, digits) + b"body"
        assert heads.find(data) == ("it", len(data) - 4, int(digits))


@pytest.mark.parametrize(
    "data",
    [
        b"POST /x HTTP/1.1\r\nContent-Length: 12 \r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length:  12\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length:\t12\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: +12\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1_2\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: \xc2\xb2\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: \r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 0000000000000012\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nCONTENT-LENGTH: 12\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\ncontent-length: 12\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 12\r\nContent-Length: 12\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 12\r\ncontent-length: 13\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\r\nContent-Length: 12\r\n\r\n",
        b"POST /x HTTP/1.1\r\nA: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 12\r\nA: b\r\n\r",
        b"POST /x HTTP/1.1\r\nContent-Length: 12\r\nA: b\n\n",
        b"\r\nPOST /x HTTP/1.1\r\nContent-Length: 12\r\nA: b\r\n\r\n",
        b"\r\n\r\nPOST /x HTTP/1.1\r\nContent-Length: 12\r\nA: b\r\n\r\n",
        b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_only_like_a_head_is_not_found(data: bytes) -> None:
    heads = remembered(b"POST /x HTTP/1.1\r\nContent-Length: 12\r\nA: b\r\n\r\n", 12)
    assert heads.find(data) is None


def test_the_beginning_of_a_head_is_not_found_whatever_length_it_claims() -> None:
    heads = remembered(b"POST /x HTTP/1.1\r\nContent-Length: 12\r\nA: b\r\n\r\n", 12)
    for length in range(100):
        assert heads.find(b"POST /x HTTP/1.1\r\nContent-Length: %d\r\nA: bc" % length) is None
        assert heads.find(b"POST /x HTTP/1.1\r\nContent-Length: %d\r\nA: b\r" % length) is None


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"POST /x HTTP/1.1\r\nContent-Length: 12\r\n\r\n", 13),
        (b"POST /x HTTP/1.1\r\nContent-Length: 12\r\n\r\n", None),
        (b"POST /x HTTP/1.1\r\nContent-Length: 12 \r\n\r\n", 12),
        (b"POST /x HTTP/1.1\r\nCONTENT-LENGTH: 12\r\n\r\n", 12),
        (b"POST /x HTTP/1.1\r\nA: Content-Length: 12\r\n\r\n", 12),
        (b"\n\r\n\r\nPOST /x HTTP/1.1\r\n\r\n", None),
        (b"\r\r\n\r\nPOST /x HTTP/1.1\r\n\r\n", None),
        (b"\r\nPOST /x HTTP/1.1\r\n\r\n", None),
        (b"POST /x HTTP/1.1\r\nA: " + b"b" * 5000 + b"\r\n\r\n", None),
        (b"POST /x HTTP/1.1\r\n", None),
    ],
)
def test_what_is_unusual_is_not_remembered(data: bytes, length: int | None) -> None:
    heads = remembered(data, length)
    assert heads.find(data) is None
    assert heads.find(data[: data.find(b"\r\n\r\n") + 4]) is None


def test_a_name_in_the_target_or_in_a_value_is_no_length() -> None:
    data = b"POST /?Content-Length:%205 HTTP/1.1\r\nA: Content-Length: 7\r\n\r\n"
    heads = remembered(data, None)
    assert heads.find(data) == ("it", len(data), 0)
    assert heads.find(data.replace(b"7", b"8")) is None


def test_memory_has_a_limit_and_none_is_one() -> None:
    heads: Heads[int] = Heads(3, 4096)
    for number in range(10):
        heads.remember(b"GET /%d HTTP/1.1\r\n\r\n" % number, number, None)
    assert sum(heads.find(b"GET /%d HTTP/1.1\r\n\r\n" % number) is not None for number in range(10)) <= 3
    off: Heads[int] = Heads(0, 4096)
    off.remember(b"GET / HTTP/1.1\r\n\r\n", 1, None)
    assert off.find(b"GET / HTTP/1.1\r\n\r\n") is None


def test_empty_lines_are_not_taken_for_somebody_elses_request(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(ANN,))
        first = await world.call()
        first.send(b"\n\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer mg-ann\r\n\r\n")
        assert (await first.answer()).status == 200
        second = await world.call()
        second.send(b"\n\r\n\r\n")
        second.get("/health")
        answered = await second.answer()
        assert b'"status":"ok"' in answered.body

    play(scene)


def test_a_key_that_is_revoked_under_a_request_stays_revoked(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(ANN, BOB))
        first = await world.call()
        first.send(HEAD + b"%d\r\n\r\n" % len(BODY) + BODY[:4])  # its head is seen, and remembered
        await first.writer.drain()
        await world.call()
        await world.get("/health")
        await world.controller.publish(route(engine.target("m-1")), keys=(BOB,))
        first.send(BODY[4:])
        assert (await first.answer()).status == 401
        for _ in range(3):
            again = await world.call()
            again.send(HEAD + b"%d\r\n\r\n" % len(BODY) + BODY)
            assert (await again.answer()).status == 401
        assert engine.asked == []

    play(scene)


def test_a_body_over_the_limit_is_refused_by_a_head_that_was_seen_too(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for _ in range(2):
            caller.post(CHAT, BODY)
            assert (await caller.answer()).status == 200
        caller.post(CHAT, BODY + b" " * 100)
        assert (await caller.answer()).status == 413

    play(scene, body_bytes=100)


# Near misses: heads that differ in a byte or two, with bodies that look like heads.
_NAMES = st.sampled_from(
    [b"Content-Length: ", b"content-length: ", b"Content-length: ", b"Content-Length:", b"Content-Length:\t",
     b"Content-Length:  ", b"X: Content-Length: ", b"X-Content-Length: ", b"Content-Length : ", b" Content-Length: "]
)  # fmt: skip
_NAME = st.one_of(*[st.just(b"Content-Length: ")] * 4, _NAMES)
_BODY = st.sampled_from(
    [
        b"",
        b"{}",
        b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\nContent-Length: 2\r\n\r\n{}",
        b"x" * 17000,
    ]
)
_SPELLED = st.sampled_from(
    [b"%d", b"0%d", b"%d ", b"%d\t", b"+%d", b"0000000000000000%d", b"%d\r\nContent-Length: 2", b"%d, 2"]
)
_LENGTH = st.one_of(*[st.just(b"%d")] * 4, _SPELLED)
_KEY = st.sampled_from([b"a", b"b"])
_START = st.sampled_from([*[b""] * 9, b"\r\n", b"\n\r\n\r\n", b"\r\n\r\n"])
_TARGET = st.sampled_from([b"/v1/embeddings", b"/v1/embeddings", b"/v1/embeddings?\r\nContent-Length:", b"/v1/models"])


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """A request with a body, or something like one."""
    body = draw(_BODY)
    said = len(body) + draw(st.sampled_from([*[0] * 9, 1, -1, 44]))
    lines = [b"Host: h", b"Authorization: Bearer %b" % draw(_KEY)]
    if draw(st.booleans()) or body:
        lines.insert(draw(st.integers(0, 2)), draw(_NAME) + draw(_LENGTH) % max(0, said))
    if draw(st.integers(0, 9)) == 0:
        lines.append(
            draw(st.sampled_from([b"Connection: close", b"Transfer-Encoding: chunked", b"Expect: 100-continue"]))
        )
    head = draw(_START) + b"POST " + draw(_TARGET) + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"
    return head + body


Step = tuple[int, bytes] | frozenset[bytes]


@st.composite
def _steps(draw: st.DrawFn) -> list[Step]:
    """Who sends what, and which keys are in force: few different requests, so that heads come again."""
    requests = draw(st.lists(_requests(), min_size=1, max_size=3))
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 12))):
        number, data = draw(st.integers(0, 1)), draw(st.sampled_from(requests))
        table = draw(st.sampled_from([frozenset((b"a",)), frozenset((b"b",)), frozenset((b"a", b"b"))]))
        body_at = data.find(b"\r\n\r\n", 8) + 5
        match draw(st.integers(0, 7)):
            case 0:
                steps.append(table)
            case 1:  # a newer table, under a request that is being received
                steps += [(number, data[:body_at]), table, (number, data[body_at:])]
            case 2:
                steps.append((number, data[:body_at]))
            case 3:
                steps.append((number, data + draw(st.sampled_from(requests))))
            case 4:
                steps.append((number, draw(st.sampled_from([b"\n\r\n\r\n", b"\r\n", b"\r\n\r\n"]))))
            case _:
                steps.append((number, data))
    return steps


class Keyed(Service):
    """Lets in whoever has a key of the table in force."""

    keys = frozenset((b"a", b"b"))

    def check(self, head: Head) -> Found | Answer:
        found = super().check(head)
        key = head.read.get(b"authorization", b"").removeprefix(b"Bearer ")
        return found if key in self.keys else answers.no_access(was_sent=True)


def _played(heads: int, steps: list[Step], cut: int) -> tuple[list[bytes], list[bytes]]:
    """What is written to two callers, and what is served, in its order."""
    service = Keyed(options(), heads)
    wires = [Wire() for _ in range(2)]
    callers = [ClientConnection(service) for _ in wires]
    for caller, wire in zip(callers, wires, strict=True):
        caller.connection_made(cast(asyncio.Transport, wire))
    for step in steps:
        if isinstance(step, frozenset):
            service.keys, service.access = step, object()
            continue
        number, data = step
        for part in (data[:cut], data[cut:]):
            if part and not wires[number].is_closed:
                callers[number].data_received(part)
    served = [
        b"%b %b %b" % (request.head.path.encode(), request.head.read[b"authorization"], request.body)
        for request, _ in service.served
    ]
    return [b"".join(wire.written) for wire in wires], served


@given(_steps(), st.sampled_from([1 << 20, 1 << 20, 60, 100]))
@settings(max_examples=1000, deadline=None)
def test_nobody_can_tell_whether_heads_are_remembered(steps: list[Step], cut: int) -> None:
    assert _played(1024, steps, cut) == _played(0, steps, cut)


class Asking:
    """An exchange that keeps what it is told."""

    takes_chunks = False

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_whole(self, head: EngineHead, body: bytes) -> None:
        self.on_head(head, len(body))
        self.on_body(body, True)

    def on_head(self, head: EngineHead, length: int | None) -> None:
        self.told.append((head.status, head.lines, head.type, head.has_id, length))

    def on_body(self, data: bytes, ended: bool) -> None:
        self.told.append((data, ended))

    def on_chunks(self, data: bytes) -> None:
        raise NotImplementedError

    def on_switch(self, lines: bytes, rest: bytes) -> bool:
        return False

    def on_defect(self) -> None:
        raise AssertionError("an exchange raised")

    def on_room(self) -> None:
        raise NotImplementedError

    def on_lost(self, loss: Loss) -> None:
        self.told.append(loss.outcome)


@st.composite
def _answers(draw: st.DrawFn) -> bytes:
    """An answer, or something like one."""
    body = draw(_BODY)
    said = len(body) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
    lines = [
        draw(st.sampled_from([b"A: b", b"A: c", b"Connection: close", b"X-Request-Id: 1", b"Content-Type: text/x"]))
    ]
    lines.insert(draw(st.integers(0, 1)), draw(_NAME) + draw(_LENGTH) % max(0, said))
    status = draw(st.sampled_from([b"200 OK", b"200 OK", b"404 No", b"204 No", b"100 Go", b"304 No"]))
    return draw(_START) + b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


def _asked(heads: int, answered: list[bytes], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setattr(upstream, "ENGINE_HEADS", heads)
    told: list[object] = []
    with closing(asyncio.new_event_loop()) as loop:
        pool = Pool(loop, options())
        for answer in answered:
            connection = Upstream(pool, pool.origin("localhost", 80, is_tls=False))
            connection.connection_made(cast(asyncio.Transport, Wire()))
            asking = Asking()
            connection.send(asking, b"", b"")
            connection.data_received(answer)
            if connection.is_open:
                connection.data_received(b"")
            told.append((asking.told, connection.is_open))
    return told


@given(st.lists(_answers(), max_size=8))
@settings(max_examples=400, deadline=None)
def test_nobody_can_tell_whether_heads_of_engines_are_remembered(answered: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert _asked(256, answered, monkeypatch) == _asked(0, answered, monkeypatch)

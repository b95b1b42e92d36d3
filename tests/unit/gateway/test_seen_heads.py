"""Heads that were seen before aren't parsed again, and nobody can tell by what comes back."""

from __future__ import annotations

import hashlib

import pytest

from modelgrid.gateway.heads import Heads
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

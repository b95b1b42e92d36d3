"""Engines that answer what HTTP doesn't know: a caller gets the whole answer, or sees that there is none."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelgrid.gateway.exchange import EngineHead, Loss
from modelgrid.gateway.options import GatewayOptions
from modelgrid.gateway.upstream import Pool, Upstream
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
OK = b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = OK + b"Content-Length: 2\r\n\r\n{}"

BROKEN: Final = {
    "both lengths": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "both lengths, the other way": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 1\r\n\r\n{}",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\n{}",
    "a negative length": OK + b"Content-Length: -2\r\n\r\n{}",
    "a length without end": OK + b"Content-Length: " + b"0" * 5000 + b"2\r\n\r\n{}",
    "a length after a space": OK + b"Content-Length : 2\r\n\r\n{}",
    "a coding that is left when unchunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a coding that isn't chunked": OK + b"Transfer-Encoding: identity\r\n\r\n{}",
    "xchunked": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"2\r\n{}0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "chunks with bare newlines": CHUNKED + b"2\n{}\n0\n\n",
    "bare newlines": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a bare newline between headers": b"HTTP/1.1 200 OK\r\nX-Evil: 1\nContent-Length: 2\r\n\r\n{}",
    "a header within a header": OK + b"A: b\rSet-Cookie: c\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header": OK + b"A: b\r\n Set-Cookie: c\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL": OK + b"A: b\0c\r\nContent-Length: 2\r\n\r\n{}",
    "a status below all": b"HTTP/1.1 000 No\r\nContent-Length: 2\r\n\r\n{}",
    "a status below all others": b"HTTP/1.1 099 No\r\nContent-Length: 2\r\n\r\n{}",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/0.9": b"{}",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n{}",
    "another protocol that has no name": b"HTTP/1.1 101 Switching Protocols\r\n\r\n{}",
    "hints without an answer": b"HTTP/1.1 103 Early Hints\r\nX-Evil: 1\r\n\r\n" * 5000,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_can_be_read_in_two_ways_or_none_reaches_nobody(play: Play, answer: bytes) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(answer)
        asked.writer.close()

    async def scene(world: World) -> None:
        broken = await world.engine(script)
        await world.controller.publish(route(broken.target("m-1"), wait_s=0.01))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (502, "engine_lost")
        assert "x-evil" not in answered.headers
        alive = await world.engine()
        await world.controller.publish(route(broken.target("m-1"), alive.target("m-2")))
        for _ in range(3):
            assert (await world.post(CHAT, BODY)).body == BODY
        assert [outcome.outcome for outcome in world.controller.outcomes][:1] == ["broke"]

    play(scene)


LATER: Final = {
    "a chunk size that is none": b"zz\r\n",
    "a chunk size beyond 64 bits": b"10000000000000001\r\n",
    "a chunk without its end": b"2\r\n{}{}",
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a trailer that says the length": b"0\r\nContent-Length: 2\r\n\r\n",
    "nothing": b"",
    "half of a chunk": b"9\r\n{}",
    "half of the end": b"0\r\n",
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_a_stream_that_breaks_does_not_look_complete(play: Play, later: bytes) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        await going.wait()
        await asked.say(later)
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await caller.head()
        assert await caller.chunk() == b"data: 1\n\n"
        going.set()
        rest = await caller.rest()
        assert b'"code":"engine_lost"' in rest
        assert not rest.endswith(b"0\r\n\r\n")

    going = asyncio.Event()
    play(scene)


WHOLE: Final = {
    "more than its length": (SIZED + b"{}", b"{}"),
    "two answers": (SIZED + SIZED.replace(b"{}", b"[]"), b"{}"),
    "another protocol behind an answer": (SIZED + BROKEN["another protocol"], b"{}"),
    "an answer behind chunks": (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + SIZED, b"{}"),
    "hints before it": (
        b"HTTP/1.1 103 Early Hints\r\nX-Evil: 1\r\nContent-Length: 9\r\n\r\n" + SIZED[:17] + SIZED[28:],
        b"{}",
    ),
    "extensions and trailers": (CHUNKED + b"2;a=b\r\n{}\r\n0\r\nX-A: b\r\nConnection: close\r\n\r\n", b"{}"),
    "HTTP/1.0, to its end": (b"HTTP/1.0 200 OK\r\n\r\n{}", b"{}"),
    "no body where there is none": (b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}", b""),
    "headers of this hop": (
        b"HTTP/1.1 200 OK\r\nConnection: X-Evil, close\r\nX-Evil: 1\r\nKeep-Alive: 9\r\nContent-Length: 2\r\n\r\n{}",
        b"{}",
    ),
}


@pytest.mark.parametrize(("answer", "body"), WHOLE.values(), ids=WHOLE)
def test_what_is_only_odd_is_relayed_and_what_follows_it_is_nobodys(play: Play, answer: bytes, body: bytes) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(answer)
        if b"HTTP/1.0" in answer:
            asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for _ in range(4):
            caller.post(CHAT, BODY)
            answered = await caller.answer()
            assert (answered.status in (200, 204), answered.body, answered.is_whole) == (True, body, True)
            assert not {"keep-alive", "x-a"} & set(answered.headers)
            await until(lambda: engine.open_connections <= 1)
        assert len(engine.asked) == 4

    play(scene)


class Wire(asyncio.Transport):
    """Nobody at the other end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_gone = False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        self.is_gone = True

    def is_closing(self) -> bool:
        return self.is_gone

    def get_write_buffer_size(self) -> int:
        return 0


class Asking:
    """An exchange that takes chunks from the first byte of a body on, and keeps what it is told."""

    def __init__(self) -> None:
        self.takes_chunks = False
        self.chunks = 0
        self.body = b""
        self.heads = 0
        self.ends: list[str] = []

    def on_whole(self, head: EngineHead, body: bytes) -> None:
        self.heads += 1
        self.body += body
        self.ends.append("whole")

    def on_head(self, head: EngineHead, length: int | None) -> None:
        self.heads += 1

    def on_body(self, data: bytes, ended: bool) -> None:
        assert not self.ends
        self.body += data
        self.takes_chunks = data[-1:] == b"\n"
        if ended:
            self.ends.append("whole")

    def on_chunks(self, data: bytes) -> None:
        assert not self.ends
        self.chunks += 1
        self.body += decoded(data)

    def on_switch(self, lines: bytes, rest: bytes) -> bool:
        return False

    def on_defect(self) -> None:
        raise AssertionError("an exchange raised")

    def on_room(self) -> None:
        pass

    def on_lost(self, loss: Loss) -> None:
        self.ends.append("lost")


def decoded(data: bytes) -> bytes:
    """Whole chunks, none the last, read as RFC 9112 says."""
    body = b""
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        assert size > 0
        assert data[size : size + 2] == b"\r\n"
        body += data[:size]
        data = data[size + 2 :]
    return body


_CHUNKS = st.lists(
    st.lists(
        st.sampled_from(
            [b"\n", b"\r\n", b"\n\r\n", b"a", b"5\r\n", b"0\r\n\r\n", b"1\r\n\n\r\n", b"data: x\n\n", b"1"]
        ),
        min_size=1,
        max_size=6,
    ).map(b"".join),
    min_size=1,
    max_size=8,
)


@given(_CHUNKS, st.lists(st.integers(0, 400), max_size=12), st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a"]))
@settings(max_examples=600, deadline=None)
def test_chunks_are_relayed_exactly_wherever_they_are_cut(chunks: list[bytes], cuts: list[int], size: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = head + b"".join((size % len(chunk)) + b"\r\n" + chunk + b"\r\n" for chunk in chunks) + b"0\r\n\r\n"
    ends = sorted({len(head), len(wire), *(cut for cut in cuts if cut < len(wire))} - {0})
    check(wire, ends, b"".join(chunks))


@pytest.mark.parametrize("length", [0x15, 0x1A3])
def test_the_size_of_a_chunk_may_be_cut_so_that_what_is_left_looks_like_whole_chunks(length: int) -> None:
    size = b"%x" % length
    left = size[1:] + b"\r\n" + b"x" * (int(size[1:], 16) - 1) + b"\n\r\n"
    chunk = left.partition(b"\r\n")[2]
    chunk += b"y" * (length - len(chunk))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n"
    wire = head + size + b"\r\n" + chunk + b"\r\n0\r\n\r\n"
    check(wire, [len(head) + 1, len(head) + 1 + len(left), len(wire)], b"\n" + chunk)


def check(wire: bytes, ends: list[int], body: bytes) -> None:
    with closing(asyncio.new_event_loop()) as loop:
        options = GatewayOptions(worker="w", link_socket=Path("link"), table_file=Path("table"))
        pool = Pool(loop, options)
        upstream = Upstream(pool, pool.origin("localhost", 80, is_tls=False))
        upstream.connection_made(Wire())
        asking = Asking()
        upstream.send(asking, b"", b"")
        at = 0
        for end in ends:
            upstream.data_received(wire[at:end])
            at = end
    assert (asking.heads, asking.body, asking.ends) == (1, body, ["whole"])

"""Hostile and odd requests: each with the answer that RFC 9112 (or 9110) asks for, and what the engine got of it."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from modelgrid.gateway.options import PIPELINED_BYTES
from modelgrid.gateway.request import CREDENTIALS, HOP_BY_HOP
from unit.gateway.world import Play, Raw, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
HONEST = START + b"Content-Length: 13\r\n\r\n" + BODY
SMUGGLED = b'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{"model":"m","s":""}'
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"d\r\n" + BODY + b"\r\n"
END = b"0\r\n\r\n"
ENDS = b'{"model":"m","":\r\n0\r\n\r\n}'


def headers(*lines: bytes) -> bytes:
    """A request without a body, with these lines."""
    return GET + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def sized(length: bytes, name: bytes = b"Content-Length: ") -> bytes:
    """A body of 13 bytes whose length is given so."""
    return START + name + length + b"\r\n\r\n" + BODY


def coded(coding: bytes, name: bytes = b"Transfer-Encoding: ") -> bytes:
    """A body in one chunk whose coding is given so."""
    return START + name + coding + b"\r\n\r\n" + CHUNK + END


def lined(line: bytes) -> bytes:
    """A request whose first line is this."""
    return line + b"\r\nHost: localhost\r\n\r\n"


# What can't be read in one way only. The answer says so, comes alone, and closes the connection.
REFUSED = {
    # RFC 9112 section 6.1 and 6.3: which of two lengths counts, servers don't agree on.
    "6.3 length, then chunks": (START + b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + END, 400),
    "6.3 chunks, then length": (START + b"Transfer-Encoding: chunked\r\nContent-Length: 13\r\n\r\n" + CHUNK + END, 400),
    "6.3 length, small chunk": (START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "6.3 a coding after chunked": (coded(b"chunked, identity"), 400),
    "6.3 chunked twice": (coded(b"chunked, chunked"), 400),
    "6.1 chunked in two lines": (coded(b"chunked\r\nTransfer-Encoding: chunked"), 400),
    "6.1 chunked, then identity": (coded(b"chunked\r\nTransfer-Encoding: identity"), 400),
    "6.1 identity, then chunked": (coded(b"identity\r\nTransfer-Encoding: chunked"), 501),
    "6.1 a coding that isn't known": (coded(b"gzip, chunked"), 501),
    "6.1 nothing, then chunked": (coded(b", chunked"), 501),
    "6.3 identity alone": (coded(b"identity"), 501),
    "6.3 gzip alone": (coded(b"gzip"), 501),
    "6.3 xchunked": (coded(b"xchunked"), 501),
    "6.3 chunkedx": (coded(b"chunkedx"), 501),
    "6.3 x chunked": (coded(b"x chunked"), 501),
    "6.3 chunked in quotes": (coded(b'"chunked"'), 501),
    "6.3 chunked with a parameter": (coded(b"chunked;q=1"), 501),
    "6.3 no coding at all": (coded(b""), 400),
    "5.1 chunked after a vertical tab": (coded(b"\x0bchunked"), 400),
    "5.1 chunked before a vertical tab": (coded(b"chunked\x0b"), 400),
    "5.1 chunked after a space before the colon": (coded(b"chunked", b"Transfer-Encoding : "), 400),
    "5.2 chunked in a folded line": (coded(b"\r\n chunked"), 400),
    "5.2 chunked in the second of folded lines": (coded(b"gzip,\r\n chunked"), 400),
    "5.2 a length that is folded away": (sized(b"13", b"A: b\r\n Content-Length: "), 400),
    "6.1 chunks in HTTP/1.0": (coded(b"chunked").replace(b"1.1", b"1.0"), 400),
    "6.1 chunks in HTTP/1.0, kept": (coded(b"chunked\r\nConnection: keep-alive").replace(b"1.1", b"1.0"), 400),
    # Section 6.3, 5: lengths that aren't one.
    "6.3 two lengths": (sized(b"13\r\nContent-Length: 3"), 400),
    "6.3 the same length twice": (sized(b"13\r\nContent-Length: 13"), 400),
    "6.3 two lengths in other letters": (sized(b"13\r\ncontent-length: 3"), 400),
    "6.3 a list of lengths": (sized(b"13, 13"), 400),
    "6.2 a length with a sign": (sized(b"+13"), 400),
    "6.2 a negative length": (sized(b"-13"), 400),
    "6.2 a hexadecimal length": (sized(b"0xd"), 400),
    "6.2 a length with a point": (sized(b"13.0"), 400),
    "6.2 a length with an underscore": (sized(b"1_3"), 400),
    "6.2 a length of two words": (sized(b"1 3"), 400),
    "6.2 no length at all": (sized(b""), 400),
    "6.2 a length beyond 64 bits": (sized(b"18446744073709551629"), 400),
    "6.2 a length of 64 bits": (sized(b"18446744073709551615"), 413),
    "6.2 a length with zeros without end": (sized(b"0" * 5000 + b"13"), 400),
    "6.2 a length in other digits": (sized("١٣".encode()), 400),
    "6.2 a length and a vertical tab": (sized(b"13\x0b"), 400),
    "5.1 a length after a space before the colon": (sized(b"13", b"Content-Length : "), 400),
    # Section 7.1: chunks.
    "7.1 a chunk size beyond 64 bits": (CHUNKED + b"1000000000000000d\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size with 0x": (CHUNKED + b"0xd\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size with an underscore": (CHUNKED + b"0_d\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size with a sign": (CHUNKED + b"+d\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a negative chunk size": (CHUNKED + b"-d\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size after a space": (CHUNKED + b" d\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size before a space": (CHUNKED + b"d \r\n" + BODY + b"\r\n" + END, 400),
    "7.1 no chunk size": (CHUNKED + b"\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size before a bare newline": (CHUNKED + b"d\n" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk size before a bare return": (CHUNKED + b"d\r" + BODY + b"\r\n" + END, 400),
    "7.1 a chunk without its end": (CHUNKED + b"d\r\n" + BODY + END, 400),
    "7.1 a chunk that ends in a bare newline": (CHUNKED + b"d\r\n" + BODY + b"\n" + END, 400),
    "7.1 a chunk that ends in a bare return": (CHUNKED + b"d\r\n" + BODY + b"\r" + END, 400),
    "7.1 a chunk that is longer than it says": (CHUNKED + b"c\r\n" + BODY + b"\r\n" + END, 400),
    "7.1 a last chunk with bare newlines": (CHUNKED + CHUNK + b"0\n\n", 400),
    "7.1.1 an extension before a bare newline": (CHUNKED + b"d;a\n" + BODY + b"\r\n" + END, 400),
    "7.1.1 an extension with a bare return": (CHUNKED + b"d;a\rb\r\n" + BODY + b"\r\n" + END, 400),
    "7.1.1 an extension with a NUL": (CHUNKED + b"d;a\0\r\n" + BODY + b"\r\n" + END, 400),
    "7.1.1 an extension in an open quote": (CHUNKED + b'd;a="\r\n' + BODY + b"\r\n" + END, 400),
    "7.1.1 an extension without end": (CHUNKED + b"d;" + b"a" * 70_000, 400),
    "7.1.1 small chunks with large extensions": (CHUNKED + (b"1;" + b"a" * 900 + b"\r\n \r\n") * 200 + END, 400),
    "7.1.2 trailers without end": (CHUNKED + CHUNK + b"0\r\n" + b"A: b\r\n" * 300, 431),
    "7.1.2 a trailer without end": (CHUNKED + CHUNK + b"0\r\nA: " + b"b" * 70_000, 400),
    "7.1.2 trailers that say the length anew": (CHUNKED + CHUNK + b"0\r\nContent-Length: 50\r\n\r\n", 400),
    "7.1.2 trailers that say the coding anew": (CHUNKED + CHUNK + b"0\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    "7.1.2 a trailer that is folded": (CHUNKED + CHUNK + b"0\r\nA: b\r\n c\r\n\r\n", 400),
    # Section 2.2: lines end in CRLF.
    "2.2 bare newlines": (b"GET /v1/models HTTP/1.1\nHost: localhost\n\n", 400),
    "2.2 a bare newline after the first line": (b"GET /v1/models HTTP/1.1\nHost: localhost\r\n\r\n", 400),
    "2.2 a bare newline after a header": (b"GET /v1/models HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n", 400),
    "2.2 a bare newline at the end": (GET + b"\n", 400),
    "2.2 a bare return in a value": (headers(b"A: b\rContent-Length: 13"), 400),
    "2.2 a bare return in a name": (headers(b"A\r: b"), 400),
    "2.2 two returns": (b"GET /v1/models HTTP/1.1\r\r\nHost: localhost\r\n\r\n", 400),
    "2.2 two returns at the end": (GET + b"\r\r\n", 400),
    "2.2 a space before the headers": (b"GET /v1/models HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    # Section 5: headers.
    "5.2 a folded line": (headers(b"A: b\r\n c"), 400),
    "5.2 a line folded by a tab": (headers(b"A: b\r\n\tc"), 400),
    "5.2 a line folded to nothing": (headers(b"A: b\r\n "), 400),
    "5.1 a space before the colon": (headers(b"A : b"), 400),
    "5.1 a tab before the colon": (headers(b"A\t: b"), 400),
    "5.1 no name": (headers(b": b"), 400),
    "5.1 no colon": (headers(b"Abc"), 400),
    "5.1 a name of two words": (headers(b"A B: c"), 400),
    "5.1 a name with a bracket": (headers(b"A(: c"), 400),
    "5.1 a name in quotes": (headers(b'"A": c'), 400),
    "5.1 a name with a NUL": (headers(b"A\0: c"), 400),
    "5.1 a name that isn't ASCII": (headers(b"A\xe9: c"), 400),
    "5.5 a value with a NUL": (headers(b"A: b\0c"), 400),
    "5.5 a value with a control character": (headers(b"A: b\x01c"), 400),
    "5.5 a value with DEL": (headers(b"A: b\x7fc"), 400),
    "5.4 many headers": (headers(*[b"A%d: b" % n for n in range(300)]), 431),
    "5.4 the same header many times": (headers(*[b"A: b"] * 20_000), 431),
    "5.4 many names without values": (headers(*[b"A:"] * 60_000), 431),
    "5.4 one large header": (headers(b"A: " + b"b" * 70_000), 431),
    "5.4 one large name": (headers(b"A" * 70_000 + b": b"), 431),
    "5.4 a name that ends in a space": (GET + b"A" * 60_000, 400),
    # Section 3: the first line.
    "2.3 no version": (lined(b"GET /v1/models"), 505),
    "2.3 HTTP/0.9": (lined(b"GET /v1/models HTTP/0.9"), 505),
    "2.3 HTTP/1.2": (lined(b"GET /v1/models HTTP/1.2"), 400),
    "2.3 HTTP/2.0": (lined(b"GET /v1/models HTTP/2.0"), 505),
    "2.3 HTTP/3.0": (lined(b"GET /v1/models HTTP/3.0"), 400),
    "2.3 HTTP/1.10": (lined(b"GET /v1/models HTTP/1.10"), 400),
    "2.3 http/1.1": (lined(b"GET /v1/models http/1.1"), 400),
    "2.3 the beginning of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 400),
    "2.3 an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
    "3 a space before the first line": (lined(b" GET /v1/models HTTP/1.1"), 400),
    "3 a space behind the first line": (lined(b"GET /v1/models HTTP/1.1 "), 400),
    "3 tabs for spaces": (lined(b"GET\t/v1/models\tHTTP/1.1"), 400),
    "3 a space in the target": (lined(b"GET /v1/mod els HTTP/1.1"), 400),
    "3.1 a method in small letters": (lined(b"get /v1/models HTTP/1.1"), 400),
    "3.1 a method that nobody knows": (lined(b"SMUGGLE /v1/models HTTP/1.1"), 400),
    "3.2 a fragment": (lined(b"GET /v1/models#a HTTP/1.1"), 400),
    "3.2 a fragment behind a query": (lined(b"GET /v1/models?a#b HTTP/1.1"), 400),
    "3.2 a backslash for a slash": (lined(b"GET \\v1\\models HTTP/1.1"), 400),
    "3.2 no slash": (lined(b"GET v1/models HTTP/1.1"), 400),
    "3.2 a query alone": (lined(b"GET ?a HTTP/1.1"), 400),
    "3.2 a NUL": (lined(b"GET /v1/models\0 HTTP/1.1"), 400),
    "3.2 a control character": (lined(b"GET /v1/models\x01 HTTP/1.1"), 400),
    "3.2 a tab": (lined(b"GET /v1/models\ta HTTP/1.1"), 400),
    "3.2 a bare return": (lined(b"GET /v1/models\ra HTTP/1.1"), 400),
    "3.2 a target that isn't ASCII": (lined(b"GET /v1/mod\xc3\xa9ls HTTP/1.1"), 400),
    "3 a very long target": (lined(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"), 431),
    "3.2.2 another scheme": (lined(b"GET ftp://localhost/v1/models HTTP/1.1"), 400),
    "3.2.2 no authority": (lined(b"GET http:///v1/models HTTP/1.1"), 400),
    "3.2.2 an authority with a user": (lined(b"GET http://a:b@localhost/v1/models HTTP/1.1"), 400),
    "3.2.3 an authority alone": (lined(b"GET localhost:80 HTTP/1.1"), 400),
    "3.2.3 CONNECT": (lined(b"CONNECT localhost:80 HTTP/1.1"), 405),
    "3.2.3 CONNECT with a body": (
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n",
        405,
    ),
    # Section 3.2: Host.
    "3.2 no Host": (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
    "3.2 no Host where there is a body": (b"POST " + HONEST[5:].replace(b"Host: localhost\r\n", b""), 400),
    "3.2 no Host beside the absolute form": (b"GET http://localhost/v1/models HTTP/1.1\r\n\r\n", 400),
    "3.2 two Hosts": (headers(b"Host: other"), 400),
    "3.2 the same Host twice": (headers(b"Host: localhost"), 400),
    "3.2 a Host with a path": (b"GET /v1/models HTTP/1.1\r\nHost: localhost/a\r\n\r\n", 400),
    "3.2 a Host with a user": (b"GET /v1/models HTTP/1.1\r\nHost: a@localhost\r\n\r\n", 400),
    "3.2 a Host of two words": (b"GET /v1/models HTTP/1.1\r\nHost: local host\r\n\r\n", 400),
    "3.2 a Host with a port of letters": (b"GET /v1/models HTTP/1.1\r\nHost: localhost:http\r\n\r\n", 400),
    # RFC 9110 section 10.1.1.
    "10.1.1 another expectation": (START + b"Expect: a-miracle\r\nContent-Length: 13\r\n\r\n" + BODY, 417),
    # No HTTP at all.
    "a hello of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    "binary": (bytes(range(256)) * 8, 400),
    "a prompt": (b"what is the weather like?\r\n\r\n", 400),
    "an SSH client": (b"SSH-2.0-OpenSSH_9.6\r\n", 400),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_read_in_two_ways_or_none_is_refused_and_nothing_behind_it_is_read(
    play: Play, request_: bytes, status: int
) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        for asked_before in (0, 1):
            caller = await world.call()
            caller.send(HONEST * asked_before)
            is_large = len(request_) > PIPELINED_BYTES // 2  # more may not come ahead of its turn
            if not is_large:
                caller.send(request_ + SMUGGLED)
            for _ in range(asked_before):
                assert (await caller.answer()).body == BODY
            if is_large:
                caller.send(request_ + SMUGGLED)
            answered = await caller.answer()
            assert (answered.status, answered.headers["connection"]) == (status, "close"), answered.body
            assert b'"error"' in answered.body
            assert await caller.is_closed()
        assert [asked.body for asked in engine.asked] == [BODY]

    play(scene)


# What is odd and can be read in one way: the engine gets one request with this body, and the connection goes on.
ACCEPTED = {
    "2.2 empty lines before the first line": (b"\r\n\r\n" + HONEST, BODY),
    "3 two spaces": (HONEST.replace(b" ", b"  ", 1), BODY),
    "6.2 spaces around the length": (sized(b"  13 \t"), BODY),
    "6.2 a length with zeros": (sized(b"0013"), BODY),
    "5 other letters": (sized(b"13", b"cOnTeNt-LeNgTh:"), BODY),
    "6.3 a body of another request": (START + b"Content-Length: %d\r\n\r\n" % (13 + len(SMUGGLED)) + BODY, None),
    "7.1 chunked in other letters": (coded(b"CHUNKed", b"TRANSFER-encoding:"), BODY),
    "7.1 many small chunks": (CHUNKED + b"".join(b"1\r\n%c\r\n" % n for n in BODY) + END, BODY),
    "7.1 zeros before the size": (CHUNKED + b"0" * 100 + CHUNK + b"000\r\n\r\n", BODY),
    "7.1 a size in capitals": (CHUNKED + CHUNK.replace(b"d", b"D", 1) + END, BODY),
    "7.1.1 extensions": (CHUNKED + b'd;a=b;c="d;\\"e";f\r\n' + BODY + b"\r\n0;last\r\n\r\n", BODY),
    "7.1.1 an extension that looks like a chunk": (CHUNKED + b'd;a="0"\r\n' + BODY + b"\r\n" + END, BODY),
    "7.1.2 trailers": (CHUNKED + CHUNK + b"0\r\nA: b\r\nC: d\r\n\r\n", BODY),
    "7.1.2 trailers that are no trailers": (
        CHUNKED + CHUNK + b"0\r\nAuthorization: Bearer x\r\nHost: evil\r\nX-A: trailer\r\nConnection: upgrade\r\n\r\n",
        BODY,
    ),
    "7.1 a body with the end of chunks in it": (CHUNKED + b"%x\r\n" % len(ENDS) + ENDS + b"\r\n" + END, ENDS),
    "7.8 an offer of h2c": (
        START + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
        b"Content-Length: 13\r\n\r\n" + BODY,
        BODY,
    ),
    "7.8 an offer of h2c with chunks": (
        START + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + END,
        BODY,
    ),
    "7.8 an offer of a WebSocket where there is none": (
        START + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 13\r\n\r\n" + BODY,
        BODY,
    ),
    "7.6.1 headers of this hop": (
        START + b"Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: a\r\nTE: trailers\r\nTrailer: A\r\n"
        b"Proxy-Authorization: b\r\nUpgrade: h2c\r\nContent-Length: 13\r\n\r\n" + BODY,
        BODY,
    ),
    "7.6.1 headers of this hop, beside an offer": (
        START + b"Connection: X-Hop, Upgrade\r\nX-Hop: 1\r\nUpgrade: h2c\r\nContent-Length: 13\r\n\r\n" + BODY,
        BODY,
    ),
    "7.6.1 headers of this hop that make the body's frame": (
        START + b"Connection: Content-Length, Host, Transfer-Encoding\r\nContent-Length: 13\r\n\r\n" + BODY,
        BODY,
    ),
    "10.1.1 no expectation in particular": (START + b"Expect:\r\nContent-Length: 13\r\n\r\n" + BODY, BODY),
    "10.1.1 an expectation that was not waited for": (
        START + b"Expect: 100-Continue \r\nContent-Length: 13\r\n\r\n" + BODY,
        BODY,
    ),
    "3.2.2 the absolute form": (HONEST.replace(b" /", b" http://localhost:9000/", 1), BODY),
    "3.2.2 the absolute form, another Host": (
        HONEST.replace(b" /", b" HTTPS://localhost/", 1).replace(b"Host: localhost", b"Host: evil.example"),
        BODY,
    ),
    "5.5 a value that isn't ASCII": (START + b"X-B: \xff\xe9\r\nContent-Length: 13\r\n\r\n" + BODY, BODY),
    "5.5 no value": (START + b"X-B:\r\nX-C: \t \r\nContent-Length: 13\r\n\r\n" + BODY, BODY),
}


@pytest.mark.parametrize(("request_", "body"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_only_odd_reaches_the_engine_as_one_request_without_what_was_for_this_hop(
    play: Play, request_: bytes, body: bytes | None
) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        if body is None:  # what follows is its body: no JSON, and refused as such
            caller.send(request_ + SMUGGLED)
            assert (await caller.answer()).status == 400
            caller.send(HONEST)
            assert (await caller.answer()).body == BODY
            assert [asked.body for asked in engine.asked] == [BODY]
            return
        for _ in range(2):  # as it came first, and as it is remembered
            caller.send(request_)
            answered = await caller.answer()
            while answered.status == 100:
                answered = await caller.answer()
            assert (answered.status, answered.body) == (200, body)
        caller.send(request_ + HONEST)
        for expected in (body, BODY):
            answered = await caller.answer()
            while answered.status == 100:
                answered = await caller.answer()
            assert (answered.status, answered.body) == (200, expected)
        assert [asked.body for asked in engine.asked] == [body, body, body, BODY]
        for asked in engine.asked:
            hop = {name.decode() for name in HOP_BY_HOP | CREDENTIALS | {b"x-hop", b"x-a", b"expect"}}
            assert not hop & set(asked.headers), asked.headers
            assert asked.line == "POST /v1/chat/completions HTTP/1.1"
            assert asked.headers["host"] == f"127.0.0.1:{engine.port}"

    play(scene)


# Paths that are not in the table: an answer, and the connection goes on.
ELSEWHERE = {
    "two slashes": (b"POST", b"//v1//chat//completions", 404),
    "two slashes that look like an authority": (b"POST", b"//localhost/v1/chat/completions", 404),
    "up and down": (b"POST", b"/v1/../v1/chat/completions", 404),
    "out of /v1": (b"GET", b"/v1/../admin", 404),
    "out of an endpoint": (b"POST", b"/v1/chat/completions/../../admin", None),
    "dots in percents": (b"POST", b"/v1/%2e%2e/v1/chat/completions", 404),
    "slashes in percents": (b"POST", b"/v1%2fchat%2fcompletions", 404),
    "letters in percents": (b"POST", b"/v1/ch%61t/completions", 404),
    "a NUL in percents": (b"POST", b"/v1/embeddings%00", 404),
    "a line end in percents": (b"POST", b"/v1/embeddings%0d%0aA:%20b", 404),
    "percents of nothing": (b"POST", b"/v1/embeddings%zz", 404),
    "backslashes": (b"POST", b"/v1\\embeddings", 404),
    "a parameter of a path": (b"POST", b"/v1/embeddings;a=b", 404),
    "other letters": (b"POST", b"/V1/Embeddings", 404),
    "an id that is dots": (b"GET", b"/v1/responses/..", 404),
    "an id with a slash in percents": (b"GET", b"/v1/responses/a%2fb", 404),
    "an id with a question mark in percents": (b"GET", b"/v1/responses/a%3fb", 404),
    "all of it": (b"OPTIONS", b"*", 404),
    "the absolute form, elsewhere": (b"GET", b"http://localhost?/v1/models", 200),
    "TRACE": (b"TRACE", b"/v1/models", 405),
    "PUT": (b"PUT", b"/v1/models", 405),
    "PROPFIND": (b"PROPFIND", b"/", 405),
}


@pytest.mark.parametrize(("method", "target", "status"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_path_that_only_means_an_endpoint_reaches_none(
    play: Play, method: bytes, target: bytes, status: int | None
) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        for _ in range(2):
            caller.send(method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answered = await caller.answer()
            assert answered.status == status or (status is None and answered.status >= 400)
        caller.send(HONEST)
        assert (await caller.answer()).body == BODY
        assert len(engine.asked) == 1

    play(scene)


def test_nothing_is_read_behind_the_last_request(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        last = HONEST.replace(b"Content", b"Connection: close\r\nContent")
        for request in (
            last,
            last.replace(b"close", b"keep-alive, close"),
            last.replace(b"close\r\n", b"close\r\nConnection: keep-alive\r\n"),
            last.replace(b"close", b"CLOSE \t"),
            last.replace(b"Connection: close", b"Connection: close, Upgrade\r\nUpgrade: h2c"),
            HONEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
            HONEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Con", b"Proxy-Connection: keep-alive\r\nCon"),
            HONEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Con", b"Connection: keep-alive, close\r\nCon"),
            HONEST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(
                b"Content", b"Connection: upgrade\r\nUpgrade: h2c\r\nC", 1
            ),
            CHUNKED + CHUNK + b"0\r\nConnection: close\r\n\r\n",
        ):
            engine.asked.clear()
            caller = await world.call()
            caller.send(request + SMUGGLED)
            answered = await caller.answer()
            assert answered.headers["connection"] == "close", request
            assert await caller.is_closed(), request
            assert [asked.body for asked in engine.asked] in ([BODY], []), request

    play(scene)


def test_a_websocket_with_a_body_is_refused(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        offer = b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        for request in (
            offer + b"Content-Length: 13\r\n\r\n" + BODY,
            offer + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK + END,
        ):
            caller = await world.call()
            caller.send(request + SMUGGLED)
            answered = await caller.answer()
            assert (answered.status, answered.headers["connection"]) == (400, "close")
            assert await caller.is_closed()
        caller = await world.call()
        caller.send(offer.replace(b"1.1", b"1.0") + b"\r\n")  # which has no such offers
        assert (await caller.answer()).status == 426
        assert engine.asked == []

    play(scene)


def test_offers_without_end_are_overlooked_one_after_the_other(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        count = PIPELINED_BYTES // 90
        caller.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" * count)
        for _ in range(count):
            assert (await caller.answer()).status == 200

    play(scene)


def test_what_stands_behind_a_form_that_is_refused_is_answered(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1"), operations=("chat", "transcriptions")))
        form = b'--x\r\nContent-Disposition: form-data; name="no-model"\r\n\r\nm\r\n--x--\r\n'
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        head += b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(form)
        for early in (0, len(head), len(head) + 9):
            caller = await world.call()
            caller.send((head + form)[:early])
            await caller.writer.drain()
            await world.get("/health")
            caller.send((head + form)[early:] + HONEST)
            answered = await caller.answer()
            assert (answered.status, "connection" in answered.headers) == (400, False)
            assert (await caller.answer()).body == BODY

    play(scene)


def test_a_flood_of_requests_is_answered_or_dropped_in_bounded_memory(play: Play) -> None:
    async def scene(world: World) -> None:
        held = asyncio.Event()

        async def hold(asked: object) -> None:
            await held.wait()

        engine = await world.engine(hold)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.send(HONEST)
        await until(lambda: engine.asked)
        caller.send(HONEST * 2000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await caller.answer()
        held.set()
        await until(lambda: world.controller.load == {})
        assert len(engine.asked) == 1

    play(scene)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (START + b"Content-Length: 1000000\r\n\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED, b"1;a=b\r\n \r\n"),
        (START + b"Content-Length: 1000000\r\n\r\n" + b" " * 100_000, b" "),
    ],
)
def test_a_body_that_comes_too_slowly_is_not_waited_for(play: Play, start: bytes, more: bytes) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(start)
        began = perf_counter()
        answer = asyncio.ensure_future(caller.answer())
        while not answer.done():
            caller.send(more)
            await asyncio.wait([answer], timeout=0.01)
        answered = await answer
        assert (answered.status, answered.headers["connection"]) == (408, "close")
        assert b"less than 1000 bytes a second" in answered.body
        assert perf_counter() - began < 5
        assert await closes(caller)

    play(scene, header_timeout_s=0.5, body_bytes_per_s=1000)


def test_a_body_that_comes_slowly_enough_is_waited_for(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        body = BODY + b" " * 3000
        caller.send(START + b"Content-Length: %d\r\n\r\n" % len(body))
        answer = asyncio.ensure_future(caller.answer())
        for at in range(0, len(body), 40):
            caller.send(body[at : at + 40])
            await asyncio.wait([answer], timeout=0.01)
        assert (await answer).body == body

    play(scene, header_timeout_s=0.25, body_bytes_per_s=500)


def test_a_body_of_single_bytes_is_read_while_it_comes(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        body = BODY + b" " * 200_000
        caller.send(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + END)
        assert (await caller.answer()).body == body
        caller.send(CHUNKED + b"1\r\n \r\n" * 20_000)  # over the limit, and endless
        caller.send(b"1\r\n \r\n" * 20_000)
        caller.leave()

    play(scene)


def test_an_endless_body_of_single_bytes_ends_at_the_limit(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.send(CHUNKED + b"1\r\n \r\n" * 6000)
        answered = await caller.answer()
        assert (answered.status, answered.headers["connection"]) == (413, "close")
        assert await closes(caller)

    play(scene, body_bytes=5000)


async def closes(caller: Raw) -> bool:
    """The other side closes, by whatever means."""
    try:
        return await caller.rest() == b""
    except ConnectionError:
        return True

"""Forms are relayed while they come, wherever they name their model."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from typing import cast

import pytest

from modelgrid.gateway.options import STALL_PROBES_S
from modelgrid.spec import Route, Target
from unit.gateway.world import Asked, Play, Raw, World, echo, until

PATH = "/v1/audio/transcriptions"
TYPE = "Content-Type: multipart/form-data; boundary=b0undary\r\n"
MIB = 1 << 20
Part = tuple[str, bytes]
MODEL: Part = ("model", b"m")
FILE: Part = ("file", b"RIFF\r\n--b0undar\r\n" + bytes(range(256)) * 8)


def form(*parts: Part) -> bytes:
    """A form of these parts, each with its name and its bytes."""
    whole = [
        b'--b0undary\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), v) for n, v in parts
    ]
    return b"".join(whole) + b"--b0undary--\r\n"


def serving(*targets: Target, **more: object) -> Route:
    """A model that transcribes."""
    return Route(model="m", operations=("transcriptions",), targets=targets, **more)  # type: ignore[arg-type]


def error_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["message"])


@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL), (FILE, MODEL, ("language", b"de"))])
@pytest.mark.parametrize("served", ["m", "org/a-longer-name"])
def test_a_form_goes_on_as_it_came_but_for_the_models_name(play: Play, parts: tuple[Part, ...], served: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1", model=served)))
        answered = await world.post(PATH, form(*parts), TYPE)
        assert answered.status == 200
        renamed = tuple((name, served.encode() if name == "model" else value) for name, value in parts)
        assert engine.asked[0].body == form(*renamed)
        assert engine.asked[0].line == "POST /v1/audio/transcriptions HTTP/1.1"
        assert engine.asked[0].headers["content-type"] == "multipart/form-data; boundary=b0undary"

    play(scene)


def test_a_chunked_form_goes_on_in_chunks(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1", model="other")))
        raw = await world.call()
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Transfer-Encoding: chunked\r\n\r\n".encode())
        body = form(FILE, MODEL)
        for at in range(0, len(body), 100):
            piece = body[at : at + 100]
            raw.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
        raw.send(b"0\r\n\r\n")
        assert (await raw.answer()).status == 200
        assert engine.asked[0].body == form(FILE, ("model", b"other"))
        raw.post(PATH, form(MODEL), TYPE)  # the connection is kept
        assert (await raw.answer()).status == 200

    play(scene)


def test_an_engine_gets_the_beginning_before_the_end_has_come(play: Play) -> None:
    async def scene(world: World) -> None:
        began = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"the beginning")
            began.set()
            await reader.readuntil(b"--b0undary--\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server = await asyncio.start_server(script, "127.0.0.1", 0, limit=4 * MIB)
        port = server.sockets[0].getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        body = form(MODEL, ("file", b"the beginning" + b"x" * MIB + b"the end"))
        raw = await world.call()
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Content-Length: {len(body)}\r\n\r\n".encode())
        raw.send(body[: MIB // 2])
        async with asyncio.timeout(5):
            await began.wait()
        raw.send(body[MIB // 2 :])
        assert (await raw.answer()).body == b"ok"
        server.close()

    play(scene)


def test_an_engine_that_does_not_read_slows_the_caller_and_gets_everything(play: Play) -> None:
    size = 64 * MIB

    async def scene(world: World) -> None:
        gate = asyncio.Event()
        counted = 0

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal counted
            await gate.wait()
            while not writer.is_closing():
                data = await reader.read(MIB)
                counted += len(data)
                if data.endswith(b"--b0undary--\r\n"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                if not data:
                    return

        server = await asyncio.start_server(script, "127.0.0.1", 0, limit=4096)
        port = server.sockets[0].getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        head, _, tail = form(MODEL, ("file", b"FILE")).partition(b"FILE")
        raw = await world.call()
        length = len(head) + size + len(tail)
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Content-Length: {length}\r\n\r\n".encode() + head)
        sent = 0

        async def send() -> None:
            nonlocal sent
            piece = b"\0" * MIB
            for _ in range(size // MIB):
                raw.send(piece)
                await raw.writer.drain()
                sent += len(piece)
            raw.send(tail)

        sending = asyncio.create_task(send())
        before = -1
        while sent != before:  # until nobody takes more
            before = sent
            await asyncio.sleep(0.3)
        assert sent < size // 2, "all of it was taken, though nobody read it"
        gate.set()
        assert (await raw.answer()).body == b"ok"
        await sending
        assert counted > size
        server.close()

    play(scene)


def test_a_caller_that_leaves_while_its_upload_is_not_read_is_noticed(play: Play) -> None:
    async def scene(world: World) -> None:
        left = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            cast(asyncio.Transport, writer.transport).pause_reading()
            try:
                while True:  # a lost connection shows by what is written
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            except ConnectionError:
                left.set()

        server = await asyncio.start_server(script, "127.0.0.1", 0, limit=4096)
        port = server.sockets[0].getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        raw = await world.call()
        body = form(MODEL, ("file", b"x" * 64 * MIB))
        raw.post(PATH, body, TYPE)
        await until(lambda: world.controller.heard and world.controller.load.get("m-1"), "it is in flight")
        await asyncio.sleep(0.3)
        raw.writer.transport.abort()
        async with asyncio.timeout(2):
            await left.wait()
        await until(lambda: not world.controller.load, "it is counted no more")
        server.close()

    play(scene)


def test_a_caller_whose_upload_is_read_slowly_is_asked_a_few_times_whether_it_is_there(play: Play) -> None:
    """Each such sign is a 1xx answer, and some clients give up after five."""

    async def scene(world: World) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = b""
            while not data.endswith(b"--b0undary--\r\n"):
                data = data[-20:] + await reader.read(MIB)
                await asyncio.sleep(0.06)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        server = await asyncio.start_server(script, sock=listener, limit=128 << 10)
        port = listener.getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        raw = await world.call()
        raw.post(PATH, form(MODEL, ("file", b"x" * 12 * MIB)), TYPE)
        asked = 0
        while (answered := await raw.head()).status == 100:
            asked += 1
        assert answered.status == 200
        assert 1 <= asked <= len(STALL_PROBES_S)
        server.close()

    play(scene)


def test_a_form_that_a_replica_lost_goes_to_another_while_it_is_held(play: Play) -> None:
    async def drop(asked: Asked) -> None:
        asked.drop()

    async def scene(world: World) -> None:
        dead, alive = await world.engine(drop), await world.engine(echo)
        await world.controller.publish(serving(dead.target("m-1"), alive.target("m-2")))
        for _ in range(2):
            answered = await world.post(PATH, form(FILE, MODEL), TYPE)
            assert answered.status == 200
            assert answered.body == form(FILE, MODEL)
        assert len(dead.asked) == 1

    play(scene)


def test_an_upload_waits_for_a_cold_model(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(serving())
        raw = await world.call()
        raw.post(PATH, form(MODEL, FILE), TYPE)
        await until(lambda: world.controller.demands, "it is demanded")
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        assert (await raw.answer()).body == form(MODEL, FILE)

    play(scene)


@pytest.mark.parametrize(
    ("type_", "body", "says"),
    [
        (TYPE, form(FILE), "has no field named model"),
        (TYPE, form(("model", b"nobody")), "cannot find the model 'nobody'"),
        (TYPE, form(MODEL, FILE, MODEL), "the form names more than one"),
        ("Content-Type: multipart/form-data; charset=utf-8\r\n", form(MODEL), "names no boundary"),
        (TYPE, b"no form at all", "has no field named model"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused_and_says_why(play: Play, type_: str, body: bytes, says: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        answered = await world.post(PATH, body, type_)
        assert answered.status in (400, 404)
        assert says in error_of(answered.body)

    play(scene)


def test_an_upload_over_the_limit_is_refused_also_where_its_length_is_not_told(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        body = form(MODEL, ("file", b"x" * 5000))
        says = "cannot take the upload: it is larger than 4.0 KiB (send less, or raise gateway.upload)"
        answered = await world.post(PATH, body, TYPE)
        assert (answered.status, error_of(answered.body)) == (413, says)
        raw = await world.call()
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Transfer-Encoding: chunked\r\n\r\n".encode())
        raw.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answered = await raw.answer()
        assert (answered.status, error_of(answered.body)) == (413, says)
        assert await raw.is_closed()

    play(scene, upload_bytes=4096)


def test_a_body_that_is_no_form_has_a_bodys_limit_where_uploads_are_taken(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(serving())
        answered = await world.post(PATH, b"x" * 2000, "Content-Type: application/json\r\n")
        says = "cannot take the request's body: it is larger than 1000 B (send less, or raise gateway.body)"
        assert (answered.status, error_of(answered.body)) == (413, says)

    play(scene, body_bytes=1000)


def test_an_upload_that_stalls_is_given_up(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        raw = await world.call()
        body = form(MODEL, FILE)
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Content-Length: {len(body)}\r\n\r\n".encode())
        raw.send(body[:-5])
        answered = await raw.answer()
        assert answered.status == 408
        assert answered.headers["connection"] == "close"
        await until(lambda: not world.controller.load, "it is counted no more")

    play(scene, header_timeout_s=0.2)


def test_an_answer_before_the_end_of_the_upload_ends_the_connection(play: Play) -> None:
    async def scene(world: World) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"name=")
            writer.write(b"HTTP/1.1 415 Unsupported Media Type\r\nContent-Length: 2\r\n\r\nno")

        server = await asyncio.start_server(script, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        body = form(MODEL, ("file", b"x" * MIB))
        raw = await world.call()
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Content-Length: {len(body)}\r\n\r\n".encode())
        raw.send(body[: MIB // 2])
        answered = await raw.answer()
        assert (answered.status, answered.body, answered.headers["connection"]) == (415, b"no", "close")
        raw.send(body[MIB // 2 :])
        assert await raw.is_closed()
        server.close()

    play(scene)


def test_who_asks_whether_to_send_an_upload_is_told_to(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        raw = await world.call()
        body = form(FILE, MODEL)
        expect = "Expect: 100-continue\r\n"
        raw.send(
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}{expect}Content-Length: {len(body)}\r\n\r\n".encode()
        )
        assert (await raw.head()).status == 100
        raw.send(body)
        assert (await raw.answer()).body == body

    play(scene)


def test_a_request_behind_an_upload_waits_its_turn(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        raw = await world.call()
        raw.post(PATH, form(FILE, MODEL), TYPE)
        raw.get("/v1/models")
        raw.post(PATH, form(MODEL), TYPE)
        assert (await raw.answer()).body == form(FILE, MODEL)
        assert b'"object":"list"' in (await raw.answer()).body
        assert (await raw.answer()).body == form(MODEL)
        assert isinstance(raw, Raw)

    play(scene)


@pytest.mark.parametrize("size", [10, 60_000, 70_000, 300_000])
@pytest.mark.parametrize("cut", [0, 1, 200, 65_536, 66_000, -1])
def test_a_form_arrives_in_order_however_it_is_cut(play: Play, size: int, cut: int) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(serving(engine.target("m-1")))
        body = form(("file", bytes(range(250)) * (size // 250)), MODEL)
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Content-Length: {len(body)}\r\n\r\n".encode()
        raw = await world.call()
        for _ in range(2):
            raw.send((head + body)[:cut])
            await raw.writer.drain()
            await asyncio.sleep(0.005)
            raw.send((head + body)[cut:])
            assert (await raw.answer()).body == body

    play(scene)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [100, 100_000, 3 * MIB])
@pytest.mark.parametrize("half_closes", [False, True])
def test_an_upload_that_comes_at_once_is_relayed_whole(
    play: Play, is_chunked: bool, size: int, half_closes: bool
) -> None:
    body = form(MODEL, ("file", bytes(range(256)) * (size // 256)))

    async def slow(asked: Asked) -> None:
        await asyncio.sleep(0.05)  # the caller's end comes first
        await echo(asked)

    async def scene(world: World) -> None:
        engine = await world.engine(slow)
        await world.controller.publish(serving(engine.target("m-1")))
        raw = await world.call()
        if is_chunked:
            raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Transfer-Encoding: chunked\r\n\r\n".encode())
            raw.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        else:
            raw.post(PATH, body, TYPE)
        if half_closes:
            raw.writer.write_eof()
        answered = await raw.answer()
        assert (answered.status, answered.is_whole) == (200, True)
        assert answered.body == body

    play(scene)


def test_an_engine_that_does_not_read_an_upload_sees_that_it_is_left(play: Play) -> None:
    async def scene(world: World) -> None:
        hung_up = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            cast(asyncio.Transport, writer.transport).pause_reading()
            poll = select.poll()
            poll.register(writer.get_extra_info("socket").fileno(), 0)
            while not poll.poll(0):  # an orderly end would stand behind what isn't read
                await asyncio.sleep(0.005)
            hung_up.set()
            writer.close()

        server = await asyncio.start_server(script, "127.0.0.1", 0, limit=4096)
        port = server.sockets[0].getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        raw = await world.call()
        raw.post(PATH, form(MODEL, ("file", b"x" * 64 * MIB)), TYPE)
        await until(lambda: world.controller.load.get("m-1"), "it is in flight")
        raw.writer.transport.abort()
        async with asyncio.timeout(5):
            await hung_up.wait()
        server.close()

    play(scene)


@pytest.mark.parametrize("size", [1000, 70_000])
def test_an_upload_behind_a_request_that_is_answered_waits_its_turn(play: Play, size: int) -> None:
    async def scene(world: World) -> None:
        gate = asyncio.Event()

        async def script(asked: Asked) -> None:
            await gate.wait()
            await echo(asked)

        engine = await world.engine(script)
        await world.controller.publish(serving(engine.target("m-1")))
        first, second = form(MODEL, ("language", b"de")), form(MODEL, ("file", b"x" * size))
        raw = await world.call()
        raw.post(PATH, first, TYPE)
        await until(lambda: engine.asked, "the first is being answered")
        raw.post(PATH, first, TYPE)
        raw.post(PATH, second, TYPE)
        await asyncio.sleep(0.1)
        assert (await world.get("/health")).status == 200  # the worker has time for others
        gate.set()
        if size < 60_000:
            for body in (first, first, second):
                assert (await raw.answer()).body == body
        else:  # more is sent ahead than is taken
            assert (await world.get("/health")).status == 200

    play(scene)


def test_a_form_that_a_busy_engine_refused_in_its_midst_goes_whole_to_another(play: Play) -> None:
    async def scene(world: World) -> None:
        refused = asyncio.Event()

        async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b'name="file"')
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            refused.set()
            await reader.read()

        server = await asyncio.start_server(busy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        engine = await world.engine()
        first = Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")
        await world.controller.publish(serving(first, engine.target("m-2")))
        body = form(MODEL, ("file", bytes(range(256)) * 12_000))
        raw = await world.call()
        raw.send(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{TYPE}Content-Length: {len(body)}\r\n\r\n".encode())
        raw.send(body[:100_000])
        async with asyncio.timeout(5):
            await refused.wait()
        raw.send(body[100_000:])
        answered = await raw.answer()
        assert answered.status == 200
        assert answered.body == body
        server.close()

    play(scene)


def test_an_upload_that_is_read_in_fits_and_starts_gets_few_signs_of_life(play: Play) -> None:
    async def scene(world: World) -> None:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not (data := await reader.read(200_000)).endswith(b"--b0undary--\r\n"):
                assert data
                await asyncio.sleep(0.005)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        server = await asyncio.start_server(script, "127.0.0.1", 0, limit=65536)
        port = server.sockets[0].getsockname()[1]
        await world.controller.publish(serving(Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")))
        raw = await world.call()
        raw.post(PATH, form(MODEL, ("file", b"x" * 24 * MIB)), TYPE)
        signs = 0
        while (head := await raw.head()).status == 100:
            signs += 1
        assert head.status == 200
        assert signs <= 4
        server.close()

    play(scene)

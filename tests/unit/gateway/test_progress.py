"""Who waits for a stream and asks for signs of it gets them, and then the stream as the engine sends it."""

from __future__ import annotations

import gc
import json
import re

import pytest

from modelgrid.gateway.options import SIGN_CHARACTERS
from modelgrid.gateway.progress import comment, without_encoding
from modelgrid.gateway.stay import Stay
from modelgrid.spec import Choice, Demand, Load, Unavailable, Virtual
from unit.gateway.world import Answered, Asked, Play, Raw, World, route, until

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BODY = b'{"model":"m","stream":true}'
ASKED = "x-modelgrid-progress: 1\r\n"
EVENTS = [b'data: {"n":1}\n\n', b'data: {"n":2}\n\ndata: [DO', b"NE]\n\n"]
SOON = {"progress_after_s": 0.02, "progress_every_s": 0.02}
SLOT = 1


async def stream(asked: Asked) -> None:
    await asked.begin_events()
    for event in EVENTS:
        await asked.chunk(event)
    await asked.chunk(b"")


async def begin(world: World, path: str = CHAT, body: bytes = BODY, headers: str = ASKED) -> Raw:
    caller = await world.call()
    caller.post(path, body, headers)
    return caller


async def signs(caller: Raw, count: int) -> list[str]:
    """The next ones."""
    found = [(await caller.chunk()).decode() for _ in range(count)]
    assert all(sign.startswith(": modelgrid waiting ") and sign.endswith("\n\n") for sign in found), found
    assert all(sign.count("\n") == 2 for sign in found)
    return found


async def after_signs(caller: Raw) -> Answered:
    """What follows them, until the answer's end or the connection's."""
    data = b""
    is_whole = False
    try:
        while part := await caller.chunk():
            if data or not part.startswith(b": modelgrid waiting "):
                data += part
        is_whole = True
    except (EOFError, ConnectionError, ValueError):
        pass
    return Answered(200, {}, data, is_whole)


def test_who_waits_is_told_how_it_stands_and_then_gets_the_stream_byte_for_byte(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(state="starting", why="loading weights", slot=SLOT, starts_s=40.4))
        caller = await begin(world)
        answered = await caller.head()
        assert (answered.status, answered.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert answered.headers["transfer-encoding"] == "chunked"
        assert answered.headers["x-request-id"]
        first, *_ = await signs(caller, 3)
        form = r": modelgrid waiting model=m state=starting waited=\d+\.\ds starts=40s why=loading weights\n\n"
        assert re.fullmatch(form, first)
        await world.controller.publish(route(state="starting", why="a first request", slot=SLOT))
        await until_sign(caller, "why=a first request")
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        rest = await after_signs(caller)
        assert (rest.body, rest.is_whole) == (b"".join(EVENTS), True)
        assert engine.asked[0].body == BODY
        caller.post(CHAT, BODY, ASKED)  # the connection goes on
        assert (await caller.answer()).body == b"".join(EVENTS)
        await world.rests()

    play(scene, **SOON)


def stays() -> list[Stay]:
    """Those that anything still holds."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, Stay)]


async def until_sign(caller: Raw, text: str) -> None:
    while text not in (await signs(caller, 1))[0]:
        pass


def test_signs_go_on_until_the_engines_first_byte(play: Play) -> None:
    async def slow(asked: Asked) -> None:
        await asked.begin_events()
        await asked.gone()

    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        await signs(caller, 1)
        engine = await world.engine(slow)
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        asked = (await until(lambda: engine.asked))[0]
        await until_sign(caller, "model=m state=sent waited=")
        await signs(caller, 2)
        await asked.chunk(EVENTS[0])
        while (part := await caller.chunk()).startswith(b":"):
            pass
        assert part == EVENTS[0]
        loads = len(world.controller.of(Load))
        await until(lambda: len(world.controller.of(Load)) > loads)  # which come each second: time for many signs
        await asked.chunk(b"data: 3\n\n")
        assert await caller.chunk() == b"data: 3\n\n"  # and none after it
        caller.leave()
        await world.rests()

    play(scene, **SOON)


@pytest.mark.parametrize(
    ("headers", "body", "path", "by_default"),
    [
        ("", BODY, CHAT, False),
        ("x-modelgrid-progress: 0\r\n", BODY, CHAT, True),
        (ASKED, b'{"model":"m"}', CHAT, False),
        (ASKED, b'{"model":"m","stream":false}', CHAT, True),
        (ASKED, BODY, "/v1/embeddings", True),
        (ASKED, b"hello", "/v1/chat/m", True),
    ],
)
def test_who_doesnt_ask_or_gets_no_stream_has_its_answer_as_ever(
    play: Play, headers: str, body: bytes, path: str, by_default: bool
) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(wait_s=0.2, progress=by_default))
        caller = await begin(world, path, body, headers)
        assert (await caller.answer()).status == 503

    play(scene, **SOON)


def test_callers_of_old_get_no_signs(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(wait_s=0.2, progress=True))
        caller = await world.call()
        caller.send(f"POST {CHAT} HTTP/1.0\r\n{ASKED}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        assert (await caller.answer()).status == 503

    play(scene, **SOON)


def test_a_model_may_tell_all_of_its_callers(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(progress=True), route(model="n"), route(model="v", virtual=ONE))
        for model in ("m", "v"):
            caller = await begin(world, body=b'{"model":"%b","stream":true}' % model.encode(), headers="")
            assert (await caller.head()).status == 200
            assert "model=m " in (await signs(caller, 1))[0]
            caller.leave()

    ONE = Virtual(choices=(Choice(model="m"),))
    play(scene, **SOON)


def test_who_is_served_soon_gets_the_engines_own_answer(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await until(lambda: world.counts.waiting(SLOT))
        engine = await world.engine(lambda asked: asked.sized(b'{"error":{}}', "400 Bad Request", "X-Own: 1\r\n"))
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        answered = await caller.answer()
        assert (answered.status, answered.headers["x-own"]) == (400, "1")

    play(scene)


def test_a_wait_in_vain_ends_with_an_event(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(operations=("chat", "messages"), wait_s=0.2, slot=SLOT))
        caller = await begin(world)
        await caller.head()
        rest = await after_signs(caller)
        assert rest.body.startswith(b"data: {")
        error = json.loads(rest.body.removeprefix(b"data: "))["error"]
        assert (error["code"], error["type"], rest.is_whole) == ("not_ready_in_time", "server_error", False)
        caller = await begin(world, MESSAGES)
        await caller.head()
        event, data, *_ = (await after_signs(caller)).body.split(b"\n")
        assert event == b"event: error"
        assert json.loads(data.removeprefix(b"data: "))["error"]["type"] == "overloaded_error"
        await world.rests()

    play(scene, **SOON)


def test_a_model_that_cant_be_served_any_more_is_told_by_an_event(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        await world.controller.publish(route(slot=SLOT, unavailable=Unavailable(why="it fails", retry_after_s=9)))
        assert b'"code":"model_unavailable"' in (await after_signs(caller)).body
        errors = await until(lambda: world.controller.metered("modelgrid_requests_total"))
        assert errors == {("m", "chat", "", "503"): (1,)}

    play(scene, **SOON)


def test_a_replica_that_is_lost_before_its_first_byte_is_replaced_though_the_head_was_sent(play: Play) -> None:
    async def drop(asked: Asked) -> None:
        await asked.begin_events()
        asked.drop()

    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        bad, good = await world.engine(drop), await world.engine(stream)
        await world.controller.publish(route(bad.target("m-1"), slot=SLOT))
        await until(lambda: world.controller.outcomes)
        await world.controller.publish(route(good.target("m-2"), slot=SLOT))
        rest = await after_signs(caller)
        assert (rest.body, rest.is_whole) == (b"".join(EVENTS), True)
        assert len(bad.asked) == len(good.asked) == 1
        await world.rests()

    play(scene, **SOON)


def test_a_stream_that_breaks_ends_as_all_streams_do(play: Play) -> None:
    async def scene(world: World) -> None:
        async def cut(asked: Asked) -> None:
            await asked.begin_events()
            await asked.chunk(EVENTS[0])
            await until(lambda: is_read)
            asked.drop()

        is_read: list[bool] = []
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        engine = await world.engine(cut)
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        while (await caller.chunk()).startswith(b":"):
            pass
        is_read.append(True)
        rest = await after_signs(caller)
        assert b'"code":"engine_lost"' in rest.body
        assert not rest.is_whole
        assert len(engine.asked) == 1
        await world.rests()

    play(scene, **SOON)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b'{\n  "error": {"message": "too long", "code": 400}\n}', {"message": "too long", "code": 400}),
        (b'{"detail":"too long"}', "the engine answered 400: too long"),
        (b'{"error":"too long"}', "the engine answered 400: too long"),
        (b"too long", "the engine answered 400: too long"),
    ],
)
def test_an_engines_error_becomes_an_event(play: Play, said: bytes, told: object) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        engine = await world.engine(lambda asked: asked.sized(said, "400 Bad Request"))
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        rest = await after_signs(caller)
        assert rest.body.count(b"\n") == 2
        error = json.loads(rest.body.removeprefix(b"data: "))["error"]
        assert told in (error, error["message"])
        counted = await until(lambda: world.controller.metered("modelgrid_requests_total"))
        assert counted == {("m", "chat", "", "400"): (1,)}
        await world.rests()

    play(scene, **SOON)


def test_an_engine_that_doesnt_stream_is_told_of(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        assert b'"code":"engine_trouble"' in (await after_signs(caller)).body
        await world.rests()

    play(scene, **SOON)


def test_a_stream_of_known_length_follows_in_chunks(play: Play) -> None:
    async def sized(asked: Asked) -> None:
        whole = b"".join(EVENTS)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(whole)
        await asked.say(head + whole)

    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        engine = await world.engine(sized)
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        rest = await after_signs(caller)
        assert (rest.body, rest.is_whole) == (b"".join(EVENTS), True)

    play(scene, **SOON)


def test_the_engine_isnt_asked_to_compress_what_follows_plain_signs(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world, headers=f"{ASKED}Accept-Encoding: gzip\r\nX-Other: 1\r\n")
        await caller.head()
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        assert (await after_signs(caller)).is_whole
        assert "accept-encoding" not in engine.asked[0].headers
        assert engine.asked[0].headers["x-other"] == "1"

    play(scene, **SOON)


def test_who_leaves_while_it_gets_signs_waits_no_more(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        await signs(caller, 1)
        caller.leave()
        await until(lambda: world.controller.of(Demand)[-1].waiting == 0)
        await world.rests()
        await until(lambda: not stays(), "no timer holds it any more")

    play(scene, **SOON)


def test_who_half_closes_while_it_gets_signs_gets_its_stream(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        caller.writer.write_eof()
        await signs(caller, 3)
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1"), slot=SLOT))
        rest = await after_signs(caller)
        assert (rest.body, rest.is_whole) == (b"".join(EVENTS), True)
        await world.rests()

    play(scene, **SOON)


def test_a_worker_that_ends_says_so_in_the_stream(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=SLOT))
        caller = await begin(world)
        await caller.head()
        world.told.set()
        assert b'"code":"stopping"' in (await after_signs(caller)).body

    play(scene, grace_s=0.1, **SOON)


def test_a_sign_is_one_line_of_bounded_length_whatever_the_reason() -> None:
    sign = comment("m", "starting", 1.25, None, "line 1\r\n\r\ndata: {}\nline\u2028 2 \x1b[0m" + "x" * 5000)
    assert sign.startswith(
        b": modelgrid waiting model=m state=starting waited=1.2s why=line 1 data: {} line  2  [0mxxx"
    )
    assert sign.endswith("x…\n\n".encode())
    assert len(sign.splitlines()) == 2
    assert len(sign.decode()) <= SIGN_CHARACTERS + 3
    assert comment("m", "sent", 12.34) == b": modelgrid waiting model=m state=sent waited=12.3s\n\n"


def test_only_the_encodings_are_left_out() -> None:
    lines = b"Accept: a\r\nACCEPT-Encoding: gzip\r\nx: accept-encoding: b\r\n"
    assert without_encoding(lines) == b"Accept: a\r\nx: accept-encoding: b\r\n"
    assert without_encoding(b"Accept: a\r\n") == b"Accept: a\r\n"

"""Engines that refuse, break and stall: what is tried again, and how a caller is told."""

from __future__ import annotations

import asyncio
import json
import socket
from time import perf_counter

import pytest

from modelgrid.spec import Outcome, Target, Unavailable
from unit.gateway.world import Asked, Engine, Play, World, echo, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'


async def drop(asked: Asked) -> None:
    asked.drop()


async def drop_within_head(asked: Asked) -> None:
    await asked.say(b"HTTP/1.1 200 OK\r\nContent-")
    asked.writer.close()


async def drop_after_head(asked: Asked) -> None:
    await asked.begin_events()
    asked.writer.close()


async def garbage(asked: Asked) -> None:
    await asked.say(b"SSH-2.0-OpenSSH\r\n\r\n")
    await asked.gone()


async def stall(asked: Asked) -> None:
    await asked.gone()


async def closed_engine(world: World) -> Engine:
    engine = await world.engine()
    await engine.refuse()
    return engine


def outcomes(world: World) -> list[tuple[str, str]]:
    return [(outcome.replica, outcome.outcome) for outcome in world.controller.of(Outcome)]


def test_a_request_that_a_replica_refuses_goes_to_another(play: Play) -> None:
    async def scene(world: World) -> None:
        dead, alive = await closed_engine(world), await world.engine()
        await world.controller.publish(route(dead.target("m-1"), alive.target("m-2")))
        for _ in range(4):  # the dead one is suspected after the first that meets it
            assert (await world.post(CHAT, BODY)).status == 200
        await until(lambda: outcomes(world))
        assert outcomes(world) == [("m-1", "refused")]
        await until(lambda: world.controller.load == {})

    play(scene)


@pytest.mark.parametrize("script", [drop, drop_within_head, drop_after_head, garbage])
def test_a_request_that_got_no_byte_goes_to_another_replica(play: Play, script: object) -> None:
    async def scene(world: World) -> None:
        broken, alive = await world.engine(script), await world.engine()  # type: ignore[arg-type]  # a Script
        await world.controller.publish(route(broken.target("m-1"), alive.target("m-2")))
        for _ in range(4):
            assert (await world.post(CHAT, BODY)).body == BODY
        assert len(broken.asked) == 1
        assert outcomes(world) == [("m-1", "broke")]

    play(scene)


def test_a_replica_is_suspected_until_a_newer_table_still_has_it(play: Play) -> None:
    async def scene(world: World) -> None:
        flaky, steady = await world.engine(), await world.engine()
        flaky.once.append(drop)
        routes = route(flaky.target("m-1"), steady.target("m-2"))
        await world.controller.publish(routes)
        await until(lambda: True)
        for _ in range(6):
            assert (await world.post(CHAT, BODY)).status == 200
        assert len(flaky.asked) == 1
        await world.controller.publish(routes)
        for _ in range(2):
            await world.post(CHAT, BODY)
        assert len(flaky.asked) == 2

    play(scene)


def test_a_suspicion_ends_by_itself(play: Play) -> None:
    async def scene(world: World) -> None:
        flaky = await world.engine()
        flaky.once.append(drop)
        await world.controller.publish(route(flaky.target("m-1")))
        start = perf_counter()
        assert (await world.post(CHAT, BODY)).status == 200
        assert 0.9 < perf_counter() - start < 5

    play(scene)


def test_a_kept_connection_that_the_engine_closed_is_no_failure(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        engine.once.append(drop)  # as an engine does whose patience ends when the next request is on its way
        start = perf_counter()
        assert (await world.post(CHAT, BODY)).status == 200
        assert perf_counter() - start < 0.9
        assert outcomes(world) == []
        assert engine.connections == 2

    play(scene)


def test_a_request_survives_the_restart_of_its_only_replica(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        callers = [await world.call() for _ in range(5)]
        for caller in callers:
            caller.post(CHAT, BODY)
        await until(lambda: len(engine.asked) == 5)
        await engine.refuse()
        await until(lambda: len(outcomes(world)) == 5)
        await world.controller.publish(route())
        await until(lambda: world.controller.demands and world.controller.demands[-1].waiting == 5)
        again = await world.engine()
        await world.controller.publish(route(again.target("m-2")))
        for caller in callers:
            assert (await caller.answer()).status == 200

    # The queue is too small for them, but they had their place.
    play(scene)


def test_a_request_that_an_engine_lost_has_its_place_in_a_full_queue(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1"), queue=0))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked)
        await world.controller.publish(route(queue=0))
        engine.asked[0].drop()
        await until(lambda: world.controller.demands)
        again = await world.engine()
        await world.controller.publish(route(again.target("m-2"), queue=0))
        assert (await caller.answer()).status == 200

    play(scene)


def test_an_engine_that_always_breaks_is_not_tried_for_ever(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(drop)
        targets = [engine.target(f"m-{number}") for number in range(20)]
        await world.controller.publish(route(*targets))
        answered = await world.post(CHAT, BODY)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["type"], error["code"]) == (502, "engine_error", "engine_lost")
        assert "tried 5 times" in error["message"]
        assert len(engine.asked) == 5

    play(scene)


def test_a_request_that_each_replica_dies_of_is_not_given_to_one_after_the_other_for_ever(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        caller = await world.call()

        async def found_sick(number: int) -> None:
            await until(lambda: len(engine.asked) == number)
            await world.controller.publish(route())
            engine.asked[-1].drop()

        await world.controller.publish(route(engine.target("m-1")))
        caller.post(CHAT, BODY)
        await found_sick(1)
        for number in range(2, 6):
            await world.controller.publish(route(engine.target(f"m-{number}")))
            await found_sick(number)
        answered = await caller.answer()
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"]) == (502, "engine_lost")
        assert "tried 5 times" in error["message"]
        await world.controller.publish(route(engine.target("m-9")))
        assert len(engine.asked) == 5

    play(scene)


def test_a_request_that_is_sent_by_kept_connections_is_not_sent_more_often(play: Play) -> None:
    async def scene(world: World) -> None:
        async def all_at_once(asked: Asked) -> None:
            await until(lambda: len(engine.asked) == 20)
            await echo(asked)

        engine = await world.engine(all_at_once)
        await world.controller.publish(route(*(engine.target(f"m-{number}") for number in range(20))))
        await asyncio.gather(*(world.post(CHAT, BODY) for _ in range(20)))
        assert engine.open_connections == 20
        engine.script = drop
        assert b"tried 5 times" in (await world.post(CHAT, BODY)).body
        assert len(engine.asked) == 20 + 5

    play(scene)


def test_a_request_whose_engine_does_not_come_back_is_told_what_happened(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(drop)
        await world.controller.publish(route(engine.target("m-1"), wait_s=0.3))
        answered = await world.post(CHAT, BODY)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["type"]) == (502, "engine_error")
        assert "closed the connection before it answered" in error["message"] or "lost the conn" in error["message"]
        assert "nothing took its place within 0.3 s" in error["message"]

    play(scene)


def test_a_request_whose_engine_is_gone_for_good_is_told_why(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked)
        await engine.refuse()
        await world.controller.publish(route(unavailable=Unavailable(why="it crash-loops", retry_after_s=9)))
        answered = await caller.answer()
        assert (answered.status, answered.headers["retry-after"]) == (503, "9")

    play(scene)


def test_an_engine_that_does_not_begin_to_answer_is_given_up_and_not_asked_twice(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1"), engine.target("m-2")))
        answered = await world.post(CHAT, BODY)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"]) == (504, "engine_timed_out")
        assert error["message"].endswith(
            " did not begin to answer within 0.2 s (try: modelgrid logs m, or raise gateway.first_byte)"
        )
        assert len(engine.asked) == 1
        await until(lambda: [outcome for _, outcome in outcomes(world)] == ["timed_out"])

    play(scene, first_byte_timeout_s=0.2)


def test_an_engine_that_takes_no_connection_is_given_up_and_the_setting_named(play: Play) -> None:
    async def scene(world: World) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            others = [socket.socket() for _ in range(4)]
            for other in others:  # nobody accepts them, so the line is full
                other.setblocking(False)
                other.connect_ex(address)
            target = Target(replica="m-1", url=f"http://127.0.0.1:{address[1]}/v1", model="m")
            await world.controller.publish(route(target, wait_s=0.2))
            answered = await world.post(CHAT, BODY)
            for other in others:
                other.close()
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"]) == (502, "engine_lost")
        assert "m-1 did not take a connection within 0.2 s" in error["message"]
        assert error["message"].endswith("; tried once (try: modelgrid logs m, or raise gateway.connect)")

    play(scene, connect_timeout_s=0.2)


def test_an_engine_that_stalls_in_an_answer_that_is_read_whole_names_that_setting(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post("/v1/chat/m", b"hi")
        assert answered.status == 504
        assert answered.body.endswith(
            b" sent nothing for 0.2 s in the middle of its answer (try: modelgrid logs m, or raise gateway.stall)\n"
        )

    play(scene, idle_timeout_s=0.2)


def test_a_head_alone_gains_an_engine_no_time(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asked.begin_events()
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1"), engine.target("m-2")))
        answered = await world.post(CHAT, BODY)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"]) == (504, "engine_timed_out")
        assert "did not begin to answer within 0.2 s" in error["message"]
        assert len(engine.asked) == 1

    play(scene, first_byte_timeout_s=0.2)


def test_an_engine_has_the_time_for_its_first_byte_also_after_its_head(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asyncio.sleep(0.5)  # longer than between bytes of a body
        await asked.chunk(b"data: 1\n\n")
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        assert (await world.post(CHAT, BODY)).body == b"data: 1\n\n"

    play(scene, idle_timeout_s=0.2)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
        (b"HTTP/1.1 200 ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"X: yyyyyyyyyyyyy\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 1000),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
)
def test_an_engine_whose_head_does_not_end_is_given_up(play: Play, start: bytes, more: bytes) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(start)
        while not asked.writer.is_closing():
            await asked.say(more)

    async def scene(world: World) -> None:
        broken, alive = await world.engine(script), await world.engine()
        await world.controller.publish(route(broken.target("m-1"), alive.target("m-2")))
        for _ in range(2):
            assert (await world.post(CHAT, BODY)).body == BODY
        assert [outcome.why for outcome in world.controller.outcomes] == ["sent a head larger than 64.0 KiB"]

    play(scene)


def test_an_engines_head_has_the_same_limit_when_it_comes_at_once(play: Play) -> None:
    size = 60_000

    async def script(asked: Asked) -> None:
        await asked.sized(asked.body, headers=f"X: {'y' * size}\r\n")

    async def scene(world: World) -> None:
        nonlocal size
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1"), wait_s=0.1))
        assert (await world.post(CHAT, BODY)).status == 200
        size = 64 << 10
        answered = await world.post(CHAT, BODY)
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (502, "engine_lost")
        assert b"sent a head larger than 64.0 KiB" in answered.body

    play(scene)


@pytest.mark.parametrize("cut", [b"", b"data: {"])
def test_a_stream_that_breaks_ends_with_an_error_event_and_never_looks_whole(play: Play, cut: bytes) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        if cut:
            await asked.chunk(cut)
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1"), engine.target("m-2")))
        answered = await world.post(CHAT, BODY)
        assert not answered.is_whole
        first, *_, last, nothing = answered.body.split(b"\n\n")
        assert (first, nothing) == (b"data: 1", b"")
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert (error["type"], error["code"]) == ("engine_error", "engine_lost")
        assert error["message"].startswith("the stream ends early: the engine ")
        assert b"[DONE]" not in answered.body
        assert len(engine.asked) == 1
        assert [outcome for _, outcome in outcomes(world)] == ["broke"]
        await until(lambda: world.controller.load == {})

    play(scene)


CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_stream_that_ends_by_its_connection_without_the_last_event_is_cut(play: Play, path: str) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(CLOSE_DELIMITED + b'data: {"a":"data: [DONE]"}\n\n')
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(path, BODY)
        assert not answered.is_whole
        first, *_, last, nothing = answered.body.split(b"\n\n")
        assert (first, nothing) == (b'data: {"a":"data: [DONE]"}', b"")
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert (error["type"], error["code"]) == ("engine_error", "engine_lost")
        assert "closed the connection before the stream's last event" in error["message"]
        assert [outcome for _, outcome in outcomes(world)] == ["broke"]
        await until(lambda: world.controller.load == {})

    play(scene)


def test_a_text_whose_stream_ends_by_its_connection_without_the_last_event_is_cut(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(CLOSE_DELIMITED + b'data: {"choices":[{"delta":{"content":"half"}}]}\n\n')
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post("/v1/chat/m?stream=true", b"hi")
        assert (answered.body, answered.is_whole) == (b"half", False)

    play(scene)


def test_a_stream_that_is_lost_before_its_first_event_goes_to_another_replica(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(CLOSE_DELIMITED)
        asked.writer.close()

    async def scene(world: World) -> None:
        engine, alive = await world.engine(script), await world.engine()
        await world.controller.publish(route(engine.target("m-1"), alive.target("m-2")))
        assert [(await world.post(CHAT, BODY)).body for _ in range(2)] == [BODY, BODY]
        assert len(engine.asked) == 1

    play(scene)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (CHAT, [b"data: 1\n\n", b"data: [DONE]\n\n"]),
        (CHAT, [b"data: 1\n\ndata:[DONE]"]),
        (CHAT, [b"data: 1\r\n\r\nda", b"ta: [DON", b"E]\r\n\r\n"]),
        ("/v1/responses", [b"event: response.completed\ndata: {}\n\n"]),
    ],
)
def test_a_stream_that_ends_by_its_connection_is_whole_where_its_last_event_came(
    play: Play, path: str, parts: list[bytes]
) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(CLOSE_DELIMITED)
        for part in parts:
            await asked.say(part)
            await asyncio.sleep(0.01)
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1"), operations=("chat", "responses")))
        answered = await world.post(path, BODY)
        assert (answered.body, answered.is_whole) == (b"".join(parts), True)
        assert outcomes(world) == []

    play(scene)


def test_an_error_that_comes_as_a_stream_needs_no_last_event(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(CLOSE_DELIMITED.replace(b"200 OK", b"400 Bad Request") + b'data: {"error":{}}\n\n')
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.body, answered.is_whole) == (400, b'data: {"error":{}}\n\n', True)

    play(scene)


def test_a_stream_in_chunks_is_whole_also_without_the_last_event(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert (answered.body, answered.is_whole) == (b"data: 1\n\n", True)

    play(scene)


def test_a_stream_that_stalls_ends_with_an_error_event(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert not answered.is_whole
        assert (
            b"the stream ends early: the engine sent nothing for 0.2 s in the middle of its answer"
            b" (try: modelgrid logs m, or raise gateway.stall)"
        ) in answered.body
        assert [outcome for _, outcome in outcomes(world)] == ["timed_out"]

    play(scene, idle_timeout_s=0.2)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_any_other_answer_that_breaks_is_cut_off(play: Play, framing: bytes) -> None:
    async def script(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b\r\n\r\n5\r\n{}{}{\r\n" % framing)
        await asyncio.sleep(0.05)
        asked.writer.close()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.is_whole) == (200, False)
        assert b"error" not in answered.body
        assert [outcome for _, outcome in outcomes(world)] == ["broke"]

    play(scene)


def test_what_an_engine_says_unasked_reaches_nobody(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.sized(b'"one"')
        await asked.say(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"stolen"')

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        for _ in range(5):
            assert (await world.post(CHAT, BODY)).body == b'"one"'
            await until(lambda: engine.open_connections == 0)

    play(scene)


def test_what_an_engine_did_not_read_of_a_request_is_not_read_as_the_next(play: Play) -> None:
    heads = 0

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        await reader.readuntil(b"\r\n\r\n")
        heads += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read(1)  # and no more
        await leave.wait()
        writer.close()

    async def scene(world: World) -> None:
        server = await asyncio.start_server(early, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = Target(replica="m-1", url=f"http://127.0.0.1:{port}/v1", model="m")
        await world.controller.publish(route(target))
        large = b'{"model":"m","p":"' + b"x" * (32 << 20) + b'"}'
        assert (await world.post(CHAT, large)).body == b"{}"
        assert (await world.post(CHAT, BODY)).body == b"{}"
        assert heads == 2
        leave.set()
        server.close()

    leave = asyncio.Event()
    play(scene)

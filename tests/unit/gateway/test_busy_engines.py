"""Engines that say that they are busy: another replica is asked, while nothing has reached the caller."""

from __future__ import annotations

import json

import pytest

from unit.gateway.world import Asked, Play, Script, World, echo, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'


def busy(status: str = "503 Busy", headers: str = "") -> Script:
    """Has no place now."""

    async def script(asked: Asked) -> None:
        await asked.sized(b'{"error":"busy"}', status, headers)

    return script


async def busy_in_parts(asked: Asked) -> None:
    await asked.say(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asked.chunk(b'{"error":')
    await asked.gone()


async def drop(asked: Asked) -> None:
    asked.drop()


@pytest.mark.parametrize("script", [busy(), busy("502 Bad Gateway"), busy("504 Gateway Timeout"), busy_in_parts])
def test_another_replica_is_asked(play: Play, script: Script) -> None:
    async def scene(world: World) -> None:
        first, second = await world.engine(script), await world.engine()
        await world.controller.publish(route(first.target("m-1", slot=1), second.target("m-2", slot=2)))
        assert (await world.post(CHAT, BODY)).body == BODY
        assert (len(first.asked), len(second.asked)) == (1, 1)
        await world.rests()

    play(scene)


def test_the_last_ones_answer_is_the_callers(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = [await world.engine(busy(headers=f"X-By: {number}\r\n")) for number in (1, 2, 3)]
        await world.controller.publish(
            route(*(engine.target(f"m-{number}", slot=number) for number, engine in enumerate(engines, 1)))
        )
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.headers["x-by"], answered.body) == (503, "3", b'{"error":"busy"}')
        assert [len(engine.asked) for engine in engines] == [1, 1, 1]
        await world.rests()

    play(scene)


def test_it_is_asked_of_so_many_and_no_more(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(busy())
        await world.controller.publish(route(*(engine.target(f"m-{number}") for number in range(20))))
        assert (await world.post(CHAT, BODY)).status == 503
        assert len(engine.asked) == 5

    play(scene)


@pytest.mark.parametrize("status", ["500 Oops", "429 Too Many Requests", "400 Bad Request"])
def test_what_may_have_been_done_is_not_done_twice(play: Play, status: str) -> None:
    async def scene(world: World) -> None:
        first, second = await world.engine(busy(status)), await world.engine()
        await world.controller.publish(route(first.target("m-1"), second.target("m-2")))
        assert (await world.post(CHAT, BODY)).status == int(status[:3])
        assert second.asked == []

    play(scene)


def test_one_that_was_busy_is_asked_again_where_the_other_is_lost(play: Play) -> None:
    async def scene(world: World) -> None:
        first, second = await world.engine(), await world.engine(drop)
        first.once = [busy()]
        await world.controller.publish(route(first.target("m-1", slot=1), second.target("m-2", slot=2)))
        assert (await world.post(CHAT, BODY)).status == 200
        assert (len(first.asked), len(second.asked)) == (2, 1)
        await world.rests()

    play(scene)


def test_an_engine_that_says_when_to_come_again_is_not_held_to_be_sick(play: Play) -> None:
    async def scene(world: World) -> None:
        calm, well = await world.engine(busy(headers="Retry-After: 1\r\n")), await world.engine()
        await world.controller.publish(route(calm.target("m-1"), well.target("m-2")))
        for _ in range(40):
            assert (await world.post(CHAT, BODY)).status == 200
        calm.script = echo
        calm.asked.clear()
        for _ in range(4):
            await world.post(CHAT, BODY)
        assert len(calm.asked) == 2

    play(scene)


def test_one_that_only_fails_is_left_alone_for_a_while(play: Play) -> None:
    async def scene(world: World) -> None:
        sick, well = await world.engine(busy("502 Bad Gateway")), await world.engine()
        await world.controller.publish(route(sick.target("m-1"), well.target("m-2")))
        for _ in range(40):
            assert (await world.post(CHAT, BODY)).status == 200
        assert len(sick.asked) == 5

    play(scene)


def test_a_stream_that_begins_ends_the_pause_of_its_replica(play: Play) -> None:
    async def stream(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        await asked.gone()

    async def scene(world: World) -> None:
        engine = await world.engine(stream)
        engine.once = [drop]
        await world.controller.publish(route(engine.target("m-1", slot=1)))
        probe = await world.call()
        probe.post(CHAT, BODY)
        assert (await probe.head()).status == 200  # after a pause
        others = [await world.call() for _ in range(3)]
        for other in others:
            other.post(CHAT, BODY)
            assert (await other.head()).status == 200
        for caller in (probe, *others):
            caller.leave()
        await world.rests()

    play(scene)


def test_a_caller_who_leaves_after_a_busy_answer_speaks_for_nobody(play: Play) -> None:
    async def stall(asked: Asked) -> None:
        await asked.gone()

    async def scene(world: World) -> None:
        sick, slow = await world.engine(busy()), await world.engine(stall)
        await world.controller.publish(route(sick.target("m-1", slot=1), slow.target("m-2", slot=2)))
        for _ in range(6):
            caller = await world.call()
            caller.post(CHAT, BODY)
            await until(lambda: world.counts.in_flight(2) == 1)
            caller.leave()
            await world.rests()
        slow.script = echo
        assert json.loads((await world.post(CHAT, BODY)).body) == {"model": "m"}

    play(scene)

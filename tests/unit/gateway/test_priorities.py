"""Who waits is sent by priority, turned away from a full queue by it, and never sent after its own deadline."""

from __future__ import annotations

import json

import pytest

from modelgrid.spec import Choice, Demand, Unavailable, Virtual
from unit.gateway.world import Asked, Play, Raw, World, route, until

CHAT = "/v1/chat/completions"


def body(name: str, **more: object) -> bytes:
    return json.dumps({"model": "m", "user": name, **more}).encode()


def name_of(asked: Asked) -> str:
    name: str = json.loads(asked.body)["user"]
    return name


async def line_up(world: World, *callers: tuple[str, str], tier: dict[str, str] | None = None) -> list[Raw]:
    """Callers that wait, in this order: each is its name and its header lines."""
    waiting = []
    for name, headers in callers:
        caller = await world.call()
        tiers = {"service_tier": tier[name]} if tier else {}
        caller.post(CHAT, body(name, **tiers), headers)
        waiting.append(caller)
        await until(lambda: world.counts.waiting(1) == len(waiting), name)
    return waiting


def priority(value: str | int) -> str:
    return f"x-modelgrid-priority: {value}\r\n"


async def order(world: World, callers: list[Raw]) -> list[str]:
    """In which order an engine gets them, by a replica that takes one after the other."""
    engine = await world.engine()
    await world.controller.publish(route(engine.target("m-1"), slot=1))
    for caller in callers:
        assert (await caller.answer()).status == 200
    return [name_of(asked) for asked in engine.asked]


def test_who_waits_is_sent_by_priority_and_among_equals_by_arrival(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1))
        callers = await line_up(
            world,
            ("normal-1", ""),
            ("low", priority("low")),
            ("high-1", priority("high")),
            ("number", priority(99)),
            ("high-2", priority("HIGH")),
            ("normal-2", priority("normal")),
        )
        assert await order(world, callers) == ["number", "high-1", "high-2", "normal-1", "normal-2", "low"]

    play(scene)


def test_the_service_tier_is_a_priority_and_is_relayed_as_it_came(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1))
        tier = {"flex": "flex", "default": "default", "priority": "priority", "header": "priority"}
        callers = await line_up(
            world, ("flex", ""), ("default", ""), ("priority", ""), ("header", priority("low")), tier=tier
        )
        assert await order(world, callers) == ["priority", "default", "flex", "header"]
        sent = {name_of(asked): json.loads(asked.body)["service_tier"] for asked in world.engines[0].asked}
        assert sent == tier

    play(scene)


def test_a_level_is_made_up_for_by_waiting(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1))
        callers = await line_up(world, ("early", ""))
        await until(lambda: any(demand.oldest_s > 1.1 for demand in world.controller.of(Demand)))
        callers += await line_up_more(world, ("late", priority(1)), ("later", priority(50)))
        assert await order(world, callers) == ["later", "early", "late"]

    play(scene)


async def line_up_more(world: World, *callers: tuple[str, str]) -> list[Raw]:
    before = world.counts.waiting(1)
    found = []
    for name, headers in callers:
        caller = await world.call()
        caller.post(CHAT, body(name), headers)
        found.append(caller)
        await until(lambda: world.counts.waiting(1) == before + len(found), name)
    return found


def test_a_full_queue_turns_away_the_last_of_the_lowest_for_a_higher_one(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1, queue=3, why="loading"))
        low_1, low_2, normal = await line_up(
            world, ("low-1", priority("low")), ("low-2", priority("low")), ("normal", "")
        )
        high = await world.call()
        high.post(CHAT, body("high"), priority("high"))
        answered = await low_2.answer()
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"], error["type"]) == (503, "queue_full", "server_error")
        assert error["message"] == (
            "cannot go on waiting for m: 3 requests wait for it, and one of a higher priority came: loading"
            " (try again soon, or raise limits.queue)"
        )
        assert int(answered.headers["retry-after"]) > 0
        assert world.counts.waiting(1) == 3
        assert await order(world, [high, normal, low_1]) == ["high", "normal", "low-1"]

    play(scene)


@pytest.mark.parametrize("equal", ["low", "-100"])
def test_a_full_queue_turns_away_who_is_not_higher(play: Play, equal: str) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1, queue=2))
        callers = await line_up(world, ("high", priority("high")), ("low", priority("low")))
        answered = await world.post(CHAT, body("new"), priority(equal))
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "queue_full")
        assert await order(world, callers) == ["high", "low"]

    play(scene)


def test_a_queue_without_a_place_turns_away_the_highest_too(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1, queue=0))
        assert (await world.post(CHAT, body("new"), priority(100))).status == 503

    play(scene)


def test_who_waits_for_one_of_several_models_is_served_by_priority_too(play: Play) -> None:
    async def scene(world: World) -> None:
        both = Virtual(choices=(Choice(model="m"), Choice(model="n")))
        await world.controller.publish(route(slot=1), route(model="n"), route(model="v", virtual=both))
        callers = []
        for name, headers in (("normal", ""), ("low", priority("low")), ("high", priority("high"))):
            caller = await world.call()
            caller.post(CHAT, json.dumps({"model": "v", "user": name}).encode(), headers)
            callers.append(caller)
            await until(lambda: world.counts.waiting(1) == len(callers))
        engine = await world.engine()
        await world.controller.publish(
            route(slot=1), route(engine.target("n-1", model="n"), model="n"), route(model="v", virtual=both)
        )
        for caller in callers:
            assert (await caller.answer()).status == 200
        assert [name_of(asked) for asked in engine.asked] == ["high", "normal", "low"]

    play(scene)


@pytest.mark.parametrize(
    ("header", "step"),
    [
        ("x-modelgrid-priority: urgent", "send high, normal, low, or a whole number"),
        ("x-modelgrid-timeout: soon", "send a number of seconds"),
        ("x-modelgrid-progress: maybe", "send 1 or true, 0 or false"),
    ],
)
def test_a_header_that_cant_be_read_is_named(play: Play, header: str, step: str) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        answered = await world.post(CHAT, body("a"), f"{header}\r\n")
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["param"]) == (400, header.partition(":")[0])
        assert step in error["message"]
        answered = await world.post("/v1/messages", body("a"), f"{header}\r\n")
        assert (answered.status, json.loads(answered.body)["type"]) == (400, "error")
        assert engine.asked == []

    play(scene)


def test_a_callers_own_deadline_ends_its_wait(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1, why="loading", starts_s=41.7))
        answered = await world.post(CHAT, body("a"), "x-modelgrid-timeout: 200ms\r\n")
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"]) == (503, "not_ready_in_time")
        assert error["message"] == (
            "cannot serve m: no replica of it was ready within 0.2 s: loading; a start takes about 42 s"
            " (try: modelgrid why m, or send a longer x-modelgrid-timeout)"
        )
        assert world.counts.waiting(1) == 0
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1"), slot=1))
        await world.post(CHAT, body("b"))
        assert [name_of(asked) for asked in engine.asked] == ["b"]

    play(scene)


def test_a_callers_deadline_is_at_most_the_models(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(wait_s=0.2))
        answered = await world.post(CHAT, body("a"), "x-modelgrid-timeout: 10m\r\n")
        assert b"or raise limits.wait" in answered.body

    play(scene)


def test_who_doesnt_wait_at_all_is_served_by_a_warm_model_only(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), route(model="cold"))
        assert (await world.post(CHAT, body("a"), "x-modelgrid-timeout: 0\r\n")).status == 200
        answered = await world.post(CHAT, b'{"model":"cold"}', "x-modelgrid-timeout: 0\r\n")
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "not_ready_in_time")

    play(scene)


def test_a_wait_that_goes_on_after_a_loss_is_told_as_one(play: Play) -> None:
    """A replica that is lost at once sends its request back into the line: who waited goes on waiting."""

    async def scene(world: World) -> None:
        await world.controller.publish(route(slot=1))
        (caller,) = await line_up(world, ("a", ""))
        await until(lambda: any(demand.oldest_s > 0.5 for demand in world.controller.of(Demand)))
        engine = await world.engine()
        await engine.refuse()
        heard = len(world.controller.heard)
        await world.controller.publish(route(engine.target("m-1"), slot=1))
        await until(lambda: any(isinstance(m, Demand) and m.oldest_s > 0.5 for m in world.controller.heard[heard:]))
        await world.controller.publish(route(slot=1, unavailable=Unavailable(why="it fails", retry_after_s=9)))
        assert (await caller.answer()).status == 503

    play(scene)

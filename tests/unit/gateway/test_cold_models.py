"""Requests that wait for a replica: in a bounded line, with a deadline, saying so to the controller."""

from __future__ import annotations

import json

from modelgrid.spec import Demand, Unavailable
from unit.gateway.world import Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'


def waiting(world: World) -> list[int]:
    return [demand.waiting for demand in world.controller.of(Demand)]


def test_a_request_for_a_cold_model_makes_demand_at_once_and_is_served_when_it_is_ready(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: waiting(world) == [1])
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        assert (await caller.answer()).body == BODY
        assert waiting(world) == [1, 0]

    play(scene)


def test_demand_is_repeated_with_how_many_wait_and_how_long(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        callers = [await world.call() for _ in range(3)]
        for caller in callers:
            caller.post(CHAT, BODY)
        await until(lambda: len(waiting(world)) >= 3)
        first, *_, last = world.controller.of(Demand)
        assert (first.model, first.waiting) == ("m", 1)
        assert last.waiting == 3
        assert 0.5 < last.oldest_s < 5
        for caller in callers:
            caller.leave()
        await until(lambda: waiting(world)[-1] == 0)

    play(scene)


def test_demand_is_said_by_the_models_name_also_for_an_alias(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(aliases=("gpt",)))
        caller = await world.call()
        caller.post(CHAT, b'{"model":"gpt"}')
        await until(lambda: waiting(world))
        assert world.controller.demands[0].model == "m"

    play(scene)


def test_a_full_queue_turns_away(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(queue=2, why="loading weights"))
        callers = [await world.call() for _ in range(2)]
        for caller in callers:
            caller.post(CHAT, BODY)
        await until(lambda: waiting(world))
        answered = await world.post(CHAT, BODY)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["type"], error["code"]) == (503, "server_error", "queue_full")
        assert error["message"] == (
            "cannot queue the request for m: 2 requests wait for it already: loading weights"
            " (try again soon, or raise limits.queue)"
        )
        assert "retry-after" in answered.headers

    play(scene)


def test_a_wait_has_an_end(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(wait_s=0.2))
        answered = await world.post(CHAT, BODY)
        error = json.loads(answered.body)["error"]
        assert (answered.status, error["code"]) == (503, "not_ready_in_time")
        assert error["message"].endswith(" within 0.2 s (try: modelgrid why m, or raise limits.wait)")
        await until(lambda: waiting(world) == [1, 0])

    play(scene)


def test_those_who_wait_are_told_when_their_model_cant_be_served(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: waiting(world))
        await world.controller.publish(route(unavailable=Unavailable(why="it does not fit", retry_after_s=60)))
        answered = await caller.answer()
        assert (answered.status, answered.headers["retry-after"]) == (503, "60")
        assert b"it does not fit" in answered.body

    play(scene)


def test_those_who_wait_are_told_when_their_model_is_gone(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: waiting(world))
        await world.controller.publish(route(model="other"))
        assert (await caller.answer()).status == 404

    play(scene)


def test_a_table_without_news_of_the_model_leaves_those_who_wait(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: waiting(world))
        for _ in range(3):
            await world.controller.publish(route(why="starting"))
        assert 0 not in waiting(world)

    play(scene)


def test_who_leaves_while_waiting_waits_no_more(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: waiting(world) == [1])
        caller.leave()
        await until(lambda: waiting(world) == [1, 0])
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        assert len(engine.asked) == 1

    play(scene)

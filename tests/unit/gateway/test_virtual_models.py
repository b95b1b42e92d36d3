"""One name over several models: which of them answers, and what becomes of a request when one can't."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from modelgrid.spec import Choice, Parameters, Route, Unavailable, Virtual
from modelgrid.spec.messages import Quota
from unit.gateway.world import Answered, Asked, Engine, Play, Raw, Script, World, echo, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"both"}'


def both(*choices: str | Choice, **more: object) -> Route:
    """A name over models."""
    named = tuple(Choice(model=choice) if isinstance(choice, str) else choice for choice in choices or ("a", "b"))
    return route(model="both", virtual=Virtual(choices=named, **more), slot=9)  # type: ignore[arg-type]  # its fields


def one(model: str, *engines: Engine, **more: object) -> Route:
    """One of the models behind it."""
    slot = {"a": 10, "b": 20, "c": 30}[model]
    targets = [
        engine.target(f"{model}-{number}", f"org/{model}", slot=slot + number)
        for number, engine in enumerate(engines, 1)
    ]
    return route(*targets, model=model, slot=slot, **more)  # type: ignore[arg-type]  # a route's fields


def answers_with(status: str, headers: str = "") -> Script:
    """An engine that answers so."""

    async def script(asked: Asked) -> None:
        await asked.sized(b'{"error":"by the engine"}', status, headers)

    return script


async def drop(asked: Asked) -> None:
    asked.drop()


async def stall(asked: Asked) -> None:
    await asked.gone()


def model_of(answered: Answered) -> str:
    assert answered.status == 200, answered.body
    return str(json.loads(answered.body)["model"])


async def begin(world: World, body: bytes = BODY) -> Raw:
    caller = await world.call()
    caller.post(CHAT, body)
    return caller


def test_the_first_that_is_warm_answers_by_its_own_name(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(), await world.engine()
        await world.controller.publish(both(), one("a", a), one("b", b))
        assert model_of(await world.post(CHAT, BODY)) == "org/a"
        await world.controller.publish(both(), one("a"), one("b", b))
        assert model_of(await world.post(CHAT, BODY)) == "org/b"
        await world.rests()

    play(scene)


def test_every_other_byte_of_the_body_is_as_it_came(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(answers_with("500 Oops")), await world.engine()
        await world.controller.publish(both(), one("a", a), one("b", b))
        body = b'{ "x" : 1.50, "model":\t"both" ,"\\u006dodels":[null] }'
        assert (await world.post(CHAT, body)).body == body.replace(b'"both"', b'"org/b"')
        assert a.asked[0].body == body.replace(b'"both"', b'"org/a"')

    play(scene)


def test_each_choice_has_parameters_of_its_own_also_on_falling_back(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(answers_with("500 Oops")), await world.engine()
        capped = Choice(model="a", parameters=Parameters(cap={"n": 2.0}))
        await world.controller.publish(
            both(capped, "b"),
            one("a", a, parameters=Parameters(set={"top_k": "7"})),
            one("b", b, parameters=Parameters(default={"seed": "1"})),
        )
        answered = await world.post(CHAT, b'{"model":"both","n":9}')
        assert json.loads(a.asked[0].body) == {"model": "org/a", "n": 2, "top_k": 7}
        assert json.loads(answered.body) == {"model": "org/b", "n": 9, "seed": 1}

    play(scene)


def test_what_is_too_many_for_the_first_spills_over(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(stall), await world.engine()
        await world.controller.publish(both(spill_over=2), one("a", a), one("b", b))
        callers = [await begin(world) for _ in range(2)]
        await until(lambda: len(a.asked) == 2)
        assert model_of(await world.post(CHAT, BODY)) == "org/b"
        for caller in callers:
            caller.leave()
        await world.rests()
        a.script = echo
        assert model_of(await world.post(CHAT, BODY)) == "org/a"

    play(scene)


@pytest.mark.parametrize(
    "status", ["429 Too Many Requests", "500 Oops", "502 Bad Gateway", "503 Busy", "529 Overloaded"]
)
def test_an_engines_failure_is_the_next_models_turn(play: Play, status: str) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(answers_with(status)), await world.engine()
        await world.controller.publish(both(), one("a", a), one("b", b))
        assert model_of(await world.post(CHAT, BODY)) == "org/b"
        assert len(a.asked) == 1
        await world.rests()

    play(scene)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "501 Not Implemented"])
def test_an_answer_about_the_request_is_the_callers(play: Play, status: str) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(answers_with(status)), await world.engine()
        await world.controller.publish(both(), one("a", a), one("b", b))
        assert (await world.post(CHAT, BODY)).status == int(status[:3])
        assert b.asked == []

    play(scene)


def test_the_last_models_failure_is_the_callers(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(answers_with("500 Oops")), await world.engine(answers_with("503 Busy", "X-By: b\r\n"))
        await world.controller.publish(both(), one("a", a), one("b", b))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.headers["x-by"]) == (503, "b")
        assert (len(a.asked), len(b.asked)) == (1, 1)
        await world.rests()

    play(scene)


def test_without_falling_back_the_first_ones_failure_is_the_callers(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(answers_with("500 Oops")), await world.engine()
        await world.controller.publish(both(fall_back=False), one("a", a), one("b", b))
        assert (await world.post(CHAT, BODY)).status == 500
        assert b.asked == []

    play(scene)


def test_a_lost_request_is_tried_with_the_models_other_replicas_first_and_then_with_the_next_model(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(drop), await world.engine()
        await world.controller.publish(both(), one("a", a, a), one("b", b))
        assert model_of(await world.post(CHAT, BODY)) == "org/b"
        assert [asked.headers["host"] for asked in a.asked] == [f"127.0.0.1:{a.port}"] * 2
        await world.rests()

    play(scene)


def test_a_request_that_got_a_byte_is_nobody_elses(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        asked.drop()

    async def scene(world: World) -> None:
        a, b = await world.engine(script), await world.engine()
        await world.controller.publish(both(), one("a", a), one("b", b))
        answered = await world.post(CHAT, BODY)
        assert (answered.is_whole, b.asked) == (False, [])
        assert b"engine_lost" in answered.body
        await world.rests()

    play(scene)


def test_an_unavailable_model_is_passed_over_and_alone_says_why(play: Play) -> None:
    async def scene(world: World) -> None:
        b = await world.engine()
        off = Unavailable(why="it does not fit", retry_after_s=30)
        await world.controller.publish(both(), one("a", unavailable=off), one("b", b))
        assert model_of(await world.post(CHAT, BODY)) == "org/b"
        await world.controller.publish(both(), one("a", unavailable=off), one("b", unavailable=off))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, answered.headers["retry-after"]) == (503, "30")
        assert b"it does not fit" in answered.body

    play(scene)


def test_a_full_queue_is_the_next_models_turn(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(both(), one("a", queue=1), one("b", queue=1))
        callers = [await begin(world) for _ in range(2)]
        demands = [("a", 1), ("b", 1)]
        await until(lambda: [(demand.model, demand.waiting) for demand in world.controller.demands[:2]] == demands)
        answered = await world.post(CHAT, BODY)
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "queue_full")
        for caller in callers:
            caller.leave()
        await world.rests()

    play(scene)


def test_who_waits_for_the_preferred_model_is_taken_by_another_that_becomes_warm(play: Play) -> None:
    async def scene(world: World) -> None:
        b = await world.engine()
        await world.controller.publish(both(), one("a"), one("b"))
        caller = await begin(world)
        await until(lambda: [demand.model for demand in world.controller.demands] == ["a"])
        await world.controller.publish(both(), one("a"), one("b", b))
        assert model_of(await caller.answer()) == "org/b"
        assert [(demand.model, demand.waiting) for demand in world.controller.demands] == [("a", 1), ("a", 0)]
        await world.rests()

    play(scene)


def test_who_waits_for_its_share_of_a_cold_model_goes_on_waiting(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(), await world.engine()
        weighed = both(Choice(model="a", weight=1.0), Choice(model="b", weight=1.0), choose="weight")
        await world.controller.publish(weighed, one("a"), one("b", b))
        callers = [await begin(world) for _ in range(64)]
        await until(lambda: len(b.asked) + world.counts.waiting(10) == 64)
        served = len(b.asked)
        assert 8 < served < 56
        for _ in range(4):
            await world.controller.publish(weighed, one("a"), one("b", b))
        assert len(b.asked) == served
        await world.controller.publish(weighed, one("a", a), one("b", b))
        models = Counter([model_of(await caller.answer()) for caller in callers])
        assert models == {"org/b": served, "org/a": 64 - served}
        await world.rests()

    play(scene)


def test_weights_are_roughly_kept(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(), await world.engine()
        weighed = both(Choice(model="a", weight=9.0), Choice(model="b", weight=1.0), choose="weight")
        await world.controller.publish(weighed, one("a", a), one("b", b))
        caller = await world.call()
        for _ in range(500):
            caller.post(CHAT, BODY)
            assert (await caller.answer()).status == 200
        assert 25 <= len(b.asked) <= 80
        await world.rests()

    play(scene)


def test_a_retry_keeps_to_the_model_that_was_drawn(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(), await world.engine()
        weighed = both(Choice(model="a", weight=1.0), Choice(model="b", weight=1.0), choose="weight")
        await world.controller.publish(weighed, one("a", a, a), one("b", b, b))
        for _ in range(32):
            for engine in (a, b):
                engine.asked.clear()
                engine.once = [answers_with("503 Busy", "Retry-After: 1\r\n")]
            assert (await world.post(CHAT, BODY)).status == 200
            assert sorted([len(a.asked), len(b.asked)]) == [0, 2]

    play(scene)


def test_an_operation_is_asked_of_a_model_that_serves_it(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(), await world.engine()
        chat_only = one("a", a, operations=("chat",))
        await world.controller.publish(both(), chat_only, one("b", b))
        assert model_of(await world.post("/v1/embeddings", BODY)) == "org/b"
        await world.controller.publish(both(), chat_only)
        answered = await world.post("/v1/embeddings", BODY)
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "model_unavailable")

    play(scene)


def test_a_model_over_its_quota_is_the_next_ones_turn_and_alone_says_so(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(), await world.engine()
        a_once = one("a", a, quota=Quota(requests_per_minute=1))
        await world.controller.publish(both(), a_once, one("b", b))
        assert [model_of(await world.post(CHAT, BODY)) for _ in range(3)] == ["org/a", "org/b", "org/b"]
        await world.controller.publish(both("a"), a_once, one("b", b))
        answered = await world.post(CHAT, BODY)
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (429, "rate_limit_exceeded")
        assert b"the model a may have 1 requests a minute" in answered.body
        await world.rests()

    play(scene)


def test_who_waits_is_told_when_the_name_is_gone(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(both(), one("a"), one("b"))
        caller = await begin(world)
        await until(lambda: world.controller.demands)
        engine = await world.engine()
        await world.controller.publish(one("a", engine), one("b"))
        answered = await caller.answer()
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (404, "model_not_found")
        await world.rests()

    play(scene)


def test_a_wait_has_one_end_over_all_models(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(both(), one("a", wait_s=0.2), one("b", wait_s=0.2))
        async with asyncio.timeout(5):
            answered = await world.post(CHAT, BODY)
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "not_ready_in_time")
        await world.rests()

    play(scene)

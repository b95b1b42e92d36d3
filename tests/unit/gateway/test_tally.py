"""What scaling is told of each model's requests, once, and within a bound."""

from __future__ import annotations

import json

from modelgrid.gateway.tally import TALLIES_A_LOAD, Tallies
from modelgrid.spec import Choice, Load, Virtual
from modelgrid.spec.messages import FIRST_BYTES, Quota, decode_from_worker, encode
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
USAGE = b'data: {"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'


async def stream(asked: Asked) -> None:
    await asked.begin_events()
    await asked.chunk(b"data: 0\n\n")
    await asked.chunk(USAGE)
    await asked.chunk(b"data: [DONE]\n\n")
    await asked.chunk(b"")


def arrived(world: World) -> dict[str, int]:
    """All that was told, added up."""
    total: dict[str, int] = {}
    for load in world.controller.of(Load):
        for model, count in load.arrived.items():
            total[model] = total.get(model, 0) + count
    return total


def first_bytes(world: World, model: str = "m") -> list[float]:
    return [time_s for load in world.controller.of(Load) for time_s in load.ttft.get(model, ())]


def tokens(world: World, model: str = "m") -> list[tuple[int, int]]:
    return [load.tokens[model] for load in world.controller.of(Load) if model in load.tokens]


def test_what_was_counted_is_told_once() -> None:
    tallies = Tallies()
    tally = tallies.of("m")
    assert tallies.of("m") is tally
    tally.arrive()
    tally.arrive()
    tally.begin(0.25)
    tally.spend(10, 3)
    tally.spend(1, 1)
    told = tallies.settle()
    assert (told.arrived, told.ttft, told.tokens) == ({"m": 2}, {"m": (0.25,)}, {"m": (11, 4)})
    again = tallies.settle()
    assert (again.arrived, again.ttft, again.tokens) == ({}, {}, {})
    tally.spend(1, 0)
    assert tallies.settle().tokens == {"m": (1, 0)}


def test_of_many_times_the_newest_are_kept() -> None:
    tallies = Tallies()
    for number in range(3 * FIRST_BYTES + 5):
        tallies.of("m").begin(float(number))
    newest = range(2 * FIRST_BYTES + 5, 3 * FIRST_BYTES + 5)
    assert sorted(tallies.settle().ttft["m"]) == [float(number) for number in newest]
    tallies.of("m").begin(1.0)
    assert tallies.settle().ttft == {"m": (1.0,)}


def test_what_is_told_at_once_is_bounded_and_fits_into_a_line_of_the_link() -> None:
    tallies = Tallies()
    for number in range(TALLIES_A_LOAD + 1):
        tally = tallies.of(f"organisation/a-model-with-a-long-name-{number}")
        for _ in range(FIRST_BYTES):
            tally.arrive()
            tally.begin(123.456789123)
            tally.spend(10**9, 10**9)
    told = tallies.settle()
    assert len(told.arrived) == len(told.ttft) == len(told.tokens) == TALLIES_A_LOAD
    load = Load(table=1, in_flight={}, arrived=told.arrived, ttft=told.ttft, tokens=told.tokens)
    line = encode(load)
    assert len(line) < 1 << 19
    assert decode_from_worker(line) == load
    assert list(tallies.settle().arrived) == [f"organisation/a-model-with-a-long-name-{TALLIES_A_LOAD}"]


def test_a_model_that_is_gone_is_forgotten_once_it_was_told() -> None:
    tallies = Tallies()
    gone = tallies.of("gone")
    gone.arrive()
    tallies.forget_but(frozenset(("m",)))
    assert tallies.settle().arrived == {"gone": 1}
    assert tallies.of("gone") is not gone


def test_a_stream_tells_its_first_byte_while_it_goes_on(play: Play) -> None:
    async def scene(world: World) -> None:
        async def begin(asked: Asked) -> None:
            await asked.begin_events()
            await asked.chunk(b"data: 0\n\n")
            await asked.gone()

        engine = await world.engine(begin)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        (time_s,) = await until(lambda: first_bytes(world))
        assert 0 < time_s < 5
        assert arrived(world) == {"m": 1}
        assert tokens(world) == []
        caller.leave()
        await until(lambda: tokens(world))

    play(scene)


def test_the_wait_for_a_replica_is_in_the_time_to_the_first_byte(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: any(demand.oldest_s > 0.5 for demand in world.controller.demands))
        assert arrived(world) == {"m": 1}
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1")))
        assert (await caller.answer()).is_whole
        (time_s,) = await until(lambda: first_bytes(world))
        assert time_s > 0.5
        assert await until(lambda: tokens(world)) == [(3, 2)]
        assert arrived(world) == {"m": 1}

    play(scene)


def test_a_whole_answer_has_a_first_byte_only_where_there_are_no_tokens_to_stream(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await until(lambda: arrived(world) == {"m": 1})
        assert first_bytes(world) == []
        await world.post("/v1/embeddings", BODY)
        await until(lambda: len(first_bytes(world)) == 1)
        assert arrived(world) == {"m": 2}

    play(scene)


def test_who_finds_the_queue_full_has_come_and_who_is_over_its_quota_has_not(play: Play) -> None:
    async def scene(world: World) -> None:
        quota = Quota(requests_per_minute=1)
        await world.controller.publish(route(queue=0), route(model="n", queue=0, slot=7, quota=quota))
        answered = await world.post(CHAT, BODY)
        assert json.loads(answered.body)["error"]["code"] == "queue_full"
        assert (await world.post(CHAT, b'{"model":"unknown"}')).status == 404
        assert [(await world.post(CHAT, b'{"model":"n"}')).status for _ in range(3)] == [503, 429, 429]
        await until(lambda: arrived(world) == {"m": 1, "n": 1})

    play(scene)


def test_a_virtual_models_request_is_one_of_the_model_that_it_goes_to(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stream)
        both = Virtual(choices=(Choice(model="m"), Choice(model="n")))
        await world.controller.publish(route(engine.target("m-1")), route(model="n"), route(model="v", virtual=both))
        assert (await world.post(CHAT, b'{"model":"v"}')).status == 200
        await until(lambda: tokens(world))
        assert arrived(world) == {"m": 1}
        assert len(first_bytes(world)) == 1

    play(scene)

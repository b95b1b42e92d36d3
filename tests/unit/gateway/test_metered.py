"""What the controller is told of requests: how they ended, for whom, how long they took, and their tokens."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from modelgrid.spec import AccessKey, Choice, Load, Quota, Route, Virtual, metrics
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
USAGE = (
    b'{"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,'
    b'"prompt_tokens_details":{"cached_tokens":8}}}'
)
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"ann").hexdigest(), slot=1)
ANN = "Authorization: Bearer ann\r\n"
FIRST_BYTE = 0.05


async def usage(asked: Asked) -> None:
    await asked.sized(USAGE)


async def stream(asked: Asked) -> None:
    await asyncio.sleep(FIRST_BYTE)
    await asked.begin_events()
    await asked.chunk(b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n')
    await asyncio.sleep(0.02)
    await asked.chunk(b'data: {"choices":[{"delta":{"content":"b"}}],"usage":null}\n\n')
    await asked.chunk(b"data: " + USAGE + b"\n\n")
    await asked.chunk(b"data: [DONE]\n\n")
    await asked.chunk(b"")


async def drop(asked: Asked) -> None:
    asked.drop()


async def stall(asked: Asked) -> None:
    await asked.gone()


async def begin_and_stall(asked: Asked) -> None:
    await asked.begin_events()
    for word in ("a", "b", "c"):
        await asked.chunk(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % word.encode())
        await asyncio.sleep(0.01)
    await asked.gone()


async def told(world: World, **expected: dict[tuple[str, ...], float]) -> None:
    """Wait until these counters say so; REQUESTS, TOKENS, ERRORS and RETRIES, in small letters, and nothing else."""
    wanted = {name: expected.get(name, {}) for name in ("requests", "tokens", "errors", "retries")}

    def counted() -> dict[str, dict[tuple[str, ...], float]]:
        rows = {name: getattr(metrics, name.upper()).name for name in wanted}
        return {
            name: {labels: values[0] for labels, values in world.controller.metered(row).items()}
            for name, row in rows.items()
        }

    try:
        await until(lambda: counted() == wanted)
    except TimeoutError:
        assert counted() == wanted


def histogram(world: World, metric: metrics.Metric, *labels: str) -> tuple[float, float]:
    """Its sum, and how many it has."""
    sum_s, *buckets = world.controller.metered(metric.name).get(labels, (0.0,))
    return sum_s, sum(buckets)


def test_a_whole_answer_with_its_usage(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("m-1"), aliases=("alias",)), keys=(KEY,))
        await world.post(CHAT, BODY, ANN)
        await world.post(CHAT, b'{"model":"alias"}', ANN)
        await told(
            world,
            requests={("m", "chat", "ann", "200"): 2},
            tokens={
                ("m", "chat", "ann", "input"): 60,
                ("m", "chat", "ann", "output"): 24,
                ("m", "chat", "ann", "cached"): 16,
            },
        )
        assert histogram(world, metrics.REQUEST_DURATION, "m", "chat")[1] == 2
        assert histogram(world, metrics.TIME_TO_FIRST_TOKEN, "m", "chat")[1] == 0
        assert sum(load.requests.get("m", 0) for load in world.controller.of(Load)) == 2

    play(scene)


def test_a_stream_with_its_usage_in_its_last_event(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stream)
        await world.controller.publish(route(engine.target("m-1")))
        assert (await world.post(CHAT, BODY)).is_whole
        await told(
            world,
            requests={("m", "chat", "", "200"): 1},
            tokens={("m", "chat", "", "input"): 30, ("m", "chat", "", "output"): 12, ("m", "chat", "", "cached"): 8},
        )
        first_s, firsts = histogram(world, metrics.TIME_TO_FIRST_TOKEN, "m", "chat")
        whole_s, wholes = histogram(world, metrics.REQUEST_DURATION, "m", "chat")
        each_s, each = histogram(world, metrics.TIME_PER_OUTPUT_TOKEN, "m", "chat")
        assert (firsts, wholes, each) == (1, 1, 1)
        assert FIRST_BYTE * 0.9 < first_s < whole_s - 0.01 < 1
        assert each_s == pytest.approx((whole_s - first_s) / 11)

    play(scene)


def test_an_error_of_ours_and_who_failed(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(
            route(queue=0), route(model="q", quota=Quota(requests_per_minute=0)), keys=(KEY,)
        )
        await world.post(CHAT, BODY, ANN)
        await world.post(CHAT, b'{"model":"q"}', ANN)
        await world.post(CHAT, b'{"model":"made-up-by-the-caller"}', ANN)
        await world.post("/v1/responses", BODY, ANN)
        await world.post(CHAT, b"{", ANN)
        await told(
            world,
            requests={
                ("m", "chat", "ann", "503"): 1,
                ("q", "chat", "ann", "429"): 1,
                ("", "chat", "", "404"): 1,
                ("", "responses", "", "400"): 1,
                ("", "chat", "", "400"): 1,
            },
            errors={
                ("m", "queue_full", "server"): 1,
                ("q", "rate_limit_exceeded", "request"): 1,
                ("", "model_not_found", "request"): 1,
                ("", "unsupported_operation", "request"): 1,
                ("", "", "request"): 1,
            },
        )
        assert histogram(world, metrics.REQUEST_DURATION, "m", "chat")[1] == 0

    play(scene)


def test_an_engines_error_is_no_error_of_ours(play: Play) -> None:
    async def fail(asked: Asked) -> None:
        await asked.sized(b'{"error":{"message":"CUDA error"}}', "500 Oops")

    async def scene(world: World) -> None:
        engine = await world.engine(fail)
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await told(world, requests={("m", "chat", "", "500"): 1})
        assert histogram(world, metrics.REQUEST_DURATION, "m", "chat")[1] == 0

    play(scene)


def test_a_caller_who_left_before_and_in_the_midst_of_an_answer(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1", slot=4)))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked)
        caller.leave()
        await told(world, requests={("m", "chat", "", "499"): 1})
        engine.script = begin_and_stall
        caller = await world.call()
        caller.post(CHAT, BODY)
        await caller.head()
        assert b"".join([await caller.chunk() for _ in range(3)]).count(b"data:") == 3
        caller.leave()
        await told(world, requests={("m", "chat", "", "499"): 2}, tokens={("m", "chat", "", "output"): 3})
        await world.rests()

    play(scene)


def test_a_stream_that_broke_has_its_status_its_error_and_the_tokens_that_came(play: Play) -> None:
    async def script(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        await asyncio.sleep(0.02)
        asked.drop()

    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(route(engine.target("m-1")))
        assert not (await world.post(CHAT, BODY)).is_whole
        await told(
            world,
            requests={("m", "chat", "", "200"): 1},
            tokens={("m", "chat", "", "output"): 1},
            errors={("m", "engine_lost", "engine"): 1},
        )

    play(scene)


def test_a_request_that_is_sent_again_is_one_request_and_a_retry(play: Play) -> None:
    async def scene(world: World) -> None:
        broken, well = await world.engine(drop), await world.engine(usage)
        await world.controller.publish(route(broken.target("m-1"), well.target("m-2")))
        await world.post(CHAT, BODY)
        await told(
            world,
            requests={("m", "chat", "", "200"): 1},
            tokens={("m", "chat", "", "input"): 30, ("m", "chat", "", "output"): 12, ("m", "chat", "", "cached"): 8},
            retries={("m",): 1},
        )

    play(scene)


def test_an_engine_that_never_answers_is_one_error(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(drop)
        await world.controller.publish(route(*(engine.target(f"m-{number}") for number in range(3)), wait_s=0.1))
        assert (await world.post(CHAT, BODY)).status == 502
        await told(
            world,
            requests={("m", "chat", "", "502"): 1},
            errors={("m", "engine_lost", "engine"): 1},
            retries={("m",): 2},
        )

    play(scene)


def test_one_that_waited_and_for_how_long(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: world.controller.demands)
        await asyncio.sleep(0.05)
        await world.controller.publish(route(engine.target("m-1")))
        assert (await caller.answer()).status == 200
        await until(lambda: histogram(world, metrics.QUEUE_TIME, "m")[1] == 1)
        assert 0.04 < histogram(world, metrics.QUEUE_TIME, "m")[0] < 1
        assert histogram(world, metrics.REQUEST_DURATION, "m", "chat")[0] > 0.04

    play(scene)


def test_a_name_over_models_is_counted_by_that_name(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        name = Route(
            model="both", operations=("chat",), virtual=Virtual(choices=(Choice(model="a"), Choice(model="m")))
        )
        broken = await world.engine(drop)
        await world.controller.publish(
            name, route(broken.target("a-1"), model="a", wait_s=0), route(engine.target("m-1"))
        )
        await world.post(CHAT, b'{"model":"both"}')
        await until(lambda: world.controller.metered(metrics.TOKENS.name))
        assert list(world.controller.metered(metrics.REQUESTS.name)) == [("both", "chat", "", "200")]

    play(scene)


def test_connections_are_told_as_they_are(play: Play) -> None:
    async def scene(world: World) -> None:
        def connections() -> float:
            return world.controller.metered(metrics.GATEWAY_CONNECTIONS.name).get(("w1",), (-1.0,))[0]

        await world.controller.publish(route())
        callers = [await world.call() for _ in range(3)]
        await until(lambda: connections() == 3)
        for caller in callers:
            caller.leave()
        await until(lambda: connections() == 0)

    play(scene)


def test_what_was_counted_last_is_told_before_the_worker_ends(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")), keys=(KEY,))
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        asked = (await until(lambda: engine.asked))[0]
        world.told.set()
        await until(lambda: world.is_draining)
        await asked.sized(USAGE)
        assert (await caller.answer()).status == 200
        await until(world.worker.done)
        await until(lambda: world.controller.metered(metrics.REQUESTS.name) == {("m", "chat", "ann", "200"): (1.0,)})
        last = world.controller.of(Load)[-1]
        assert (last.in_flight, sum(load.requests.get("m", 0) for load in world.controller.of(Load))) == ({}, 1)

    play(scene)


def test_also_of_requests_that_are_cut_off(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        callers = [await world.call() for _ in range(2)]
        for caller in callers:
            caller.post(CHAT, BODY)
        await until(lambda: len(engine.asked) == 2)
        world.told.set()
        world.told_again.set()
        await until(world.worker.done)
        await until(lambda: sum(v[0] for v in world.controller.metered(metrics.REQUESTS.name).values()) == 2)
        assert world.controller.load == {}

    play(scene)


def test_a_new_controller_is_told_everything(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await until(lambda: world.controller.metered(metrics.REQUESTS.name))
        await world.controller.leave()
        world.controller.heard.clear()
        await world.controller.listen()
        await until(lambda: world.controller.metered(metrics.REQUESTS.name) == {("m", "chat", "", "200"): (1,)})

    play(scene)

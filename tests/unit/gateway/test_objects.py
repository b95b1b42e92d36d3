"""Requests about what an engine made before, by its id: they find the engine that has it, whichever that is."""

from __future__ import annotations

import hashlib
import json

import pytest

from modelgrid.spec import AccessKey, Choice, Demand, Quota, Virtual, metrics
from modelgrid.spec.operations import RESPONSES, SPEECH, VIDEOS
from unit.gateway.world import Answered, Asked, Engine, Play, Script, World, echo, route, until

BOTH = (RESPONSES, VIDEOS)


def knows(*paths: str, status: str = "200 OK") -> Script:
    """An engine that has made these."""

    async def script(asked: Asked) -> None:
        path = asked.line.split(" ")[1].partition("?")[0]
        if path in paths:
            await asked.sized(json.dumps({"at": path, "by": asked.headers["host"]}).encode(), status)
        else:
            await asked.sized(b'{"error":"not here"}', "404 Not Found")

    return script


async def drop(asked: Asked) -> None:
    asked.drop()


def by(engine: Engine) -> str:
    return f"127.0.0.1:{engine.port}"


def code_of(answered: Answered) -> tuple[int, str]:
    return answered.status, json.loads(answered.body)["error"]["code"]


async def ask(world: World, method: str, path: str, body: bytes = b"", headers: str = "") -> Answered:
    caller = await world.call()
    if body:
        caller.send(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
    else:
        caller.get(path, headers, method)
    answered = await caller.answer(to_head=method == "HEAD")
    caller.leave()
    return answered


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/videos/video_1"),
        ("DELETE", "/v1/videos/video_1"),
        ("GET", "/v1/videos/video_1/content"),
        ("POST", "/v1/videos/video_1/remix"),
    ],
)
def test_whoever_has_it_answers(play: Play, method: str, path: str) -> None:
    async def scene(world: World) -> None:
        engines = [await world.engine(knows()) for _ in range(2)] + [await world.engine(knows(path))]
        await world.controller.publish(
            route(engines[0].target("a-1", slot=1), engines[1].target("a-2", slot=2), model="a", operations=BOTH),
            route(engines[2].target("b-1", slot=3), model="b", operations=BOTH),
        )
        body = b'{"prompt" : "again"}' if method == "POST" else b""
        answered = await ask(world, method, path, body)
        assert json.loads(answered.body) == {"at": path, "by": by(engines[2])}
        assert engines[2].asked[0].line == f"{method} {path} HTTP/1.1"
        assert engines[2].asked[0].body == body
        await world.rests()

    play(scene)


def test_the_query_goes_on(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(knows("/v1/responses/r"))
        await world.controller.publish(route(engine.target("a-1"), operations=BOTH))
        await world.get("/v1/responses/r?include[]=x%20y&stream=false")
        assert engine.asked[0].line == "GET /v1/responses/r?include[]=x%20y&stream=false HTTP/1.1"

    play(scene)


def test_what_nobody_knows_is_not_found_in_the_engines_words(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = [await world.engine(knows()) for _ in range(3)]
        await world.controller.publish(
            route(*(engine.target(f"a-{n}", slot=n) for n, engine in enumerate(engines, 1)), operations=BOTH)
        )
        answered = await world.get("/v1/responses/r")
        assert (answered.status, answered.body) == (404, b'{"error":"not here"}')
        assert [len(engine.asked) for engine in engines] == [1, 1, 1]
        await world.rests()

    play(scene)


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "501 Not Implemented", "500 Oops", "503 Busy"])
def test_an_engine_that_has_no_such_thing_or_is_sick_is_passed_over(play: Play, status: str) -> None:
    async def fail(asked: Asked) -> None:
        await asked.sized(b"{}", status)

    async def scene(world: World) -> None:
        sick, well = await world.engine(fail), await world.engine(knows("/v1/responses/r"))
        await world.controller.publish(route(sick.target("a-1"), well.target("a-2"), operations=BOTH))
        assert (await world.get("/v1/responses/r")).status == 200

    play(scene)


async def fail(asked: Asked) -> None:
    await asked.sized(b"{}", "500 Oops")


@pytest.mark.parametrize("script", [drop, fail])
def test_while_one_that_may_know_it_cant_say_so_it_is_not_said_to_be_gone(play: Play, script: Script) -> None:
    async def scene(world: World) -> None:
        lost, other = await world.engine(script), await world.engine(knows())
        await world.controller.publish(route(lost.target("a-1", slot=1), other.target("a-2", slot=2), operations=BOTH))
        for _ in range(2):  # by the second the lost one is left alone
            answered = await world.get("/v1/responses/r")
            assert code_of(answered) == (503, "object_unknown_now")
            assert "retry-after" in answered.headers
        await world.rests()

    play(scene)


def test_with_a_model_named_only_its_replicas_are_asked(play: Play) -> None:
    async def scene(world: World) -> None:
        path = "/v1/videos/v"
        a, b = await world.engine(knows(path)), await world.engine(knows(path))
        await world.controller.publish(
            route(a.target("a-1"), model="a", operations=BOTH),
            route(b.target("b-1"), model="b", operations=BOTH, aliases=("bb",)),
            route(model="name", operations=BOTH, virtual=Virtual(choices=(Choice(model="b"),))),
        )
        for name in ("b", "bb", "name"):
            assert json.loads((await world.get(f"{path}?model={name}")).body)["by"] == by(b)
        assert a.asked == []
        assert (await world.get(f"{path}?model=none")).status == 404

    play(scene)


def test_a_list_needs_a_model_where_there_are_several(play: Play) -> None:
    async def scene(world: World) -> None:
        a, b = await world.engine(knows("/v1/videos")), await world.engine(knows("/v1/videos"))
        only = route(a.target("a-1"), model="a", operations=BOTH)
        await world.controller.publish(only)
        assert json.loads((await world.get("/v1/videos?limit=3")).body)["by"] == by(a)
        await world.controller.publish(only, route(b.target("b-1"), model="b", operations=BOTH))
        assert code_of(await world.get("/v1/videos")) == (400, "model_required")
        assert json.loads((await world.get("/v1/videos?model=b")).body)["by"] == by(b)

    play(scene)


def test_the_voices_of_a_model_that_is_not_loaded_load_it(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(operations=(SPEECH,)))
        caller = await world.call()
        caller.get("/v1/audio/voices?model=m")
        await until(lambda: [demand.waiting for demand in world.controller.of(Demand)] == [1])
        engine = await world.engine(knows("/v1/audio/voices"))
        await world.controller.publish(route(engine.target("m-1"), operations=(SPEECH,)))
        assert json.loads((await caller.answer()).body)["by"] == by(engine)

    play(scene)


def test_a_list_by_a_prefix_of_ids_is_no_path(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("a-1"), operations=BOTH))
        for path in ("/v1/videos/../admin", "/v1/videos/%2e%2e", "/v1/videos/a/b", "/v1/responses"):
            assert (await world.get(path)).status in (404, 405)
        assert engine.asked == []

    play(scene)


def test_where_nothing_is_warm_it_is_said_to_be_unknown_for_now(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(operations=BOTH))
        for path in ("/v1/responses/r", "/v1/responses/r?model=m"):
            assert code_of(await world.get(path)) == (404, "not_found")
        assert world.controller.demands == []
        await world.controller.publish(route())
        assert code_of(await world.get("/v1/responses/r?model=m")) == (400, "unsupported_operation")

    play(scene)


def test_a_video_of_the_one_model_that_is_not_loaded_loads_it(play: Play) -> None:
    async def scene(world: World) -> None:
        warm, path = await world.engine(knows()), "/v1/videos/video_1"
        others = route(warm.target("a-1"), model="a", operations=BOTH)
        await world.controller.publish(others, route(model="b", operations=BOTH))
        caller = await world.call()
        caller.get(path)
        await until(lambda: [(demand.model, demand.waiting) for demand in world.controller.of(Demand)] == [("b", 1)])
        engine = await world.engine(knows(path))
        await world.controller.publish(others, route(engine.target("b-1", slot=2), model="b", operations=BOTH))
        assert json.loads((await caller.answer()).body)["by"] == by(engine)
        assert len(warm.asked) == 1
        assert (await world.get("/v1/videos/video_2")).status == 404

    play(scene)


def test_a_video_of_one_of_several_that_are_not_loaded_loads_none(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(model="a", operations=BOTH), route(model="b", operations=BOTH))
        assert code_of(await world.get("/v1/videos/video_1")) == (404, "not_found")
        assert world.controller.demands == []

    play(scene)


def test_head_is_get_without_a_body(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(knows("/v1/videos/v"))
        await world.controller.publish(route(engine.target("a-1"), operations=BOTH))
        caller = await world.call()
        for _ in range(2):
            caller.get("/v1/videos/v", method="HEAD")
            head = await caller.head()
            assert (head.status, int(head.headers["content-length"]) > 0) == (200, True)
        caller.get("/health")
        assert (await caller.answer()).status == 200

    play(scene)


def test_a_key_finds_what_its_models_made_alone_and_pays_a_request(play: Play) -> None:
    async def scene(world: World) -> None:
        path = "/v1/responses/r"
        a, b = await world.engine(knows()), await world.engine(knows(path))
        quota = Quota(requests_per_minute=3, concurrency=1)
        digest = hashlib.sha256(b"ann").hexdigest()
        key = AccessKey(id="1", name="ann", sha256=digest, slot=1, quota=quota, models=("a", "name"))
        routes = (
            route(a.target("a-1"), model="a", operations=BOTH),
            route(b.target("b-1"), model="b", operations=BOTH),
        )
        ann = "Authorization: Bearer ann\r\n"
        await world.controller.publish(*routes, keys=(key,))
        assert (await world.get(path, ann)).status == 404
        assert (await world.get(f"{path}?model=b", ann)).status == 403
        assert b.asked == []
        name = route(model="name", operations=BOTH, virtual=Virtual(choices=(Choice(model="b"),)))
        await world.controller.publish(*routes, name, keys=(key,))
        assert (await world.get(path, ann)).status == 200
        assert (await world.get(path, ann)).status == 200
        assert (await world.get(path, ann)).status == 429
        await world.rests()

    play(scene)


def test_reading_an_answer_again_costs_no_tokens(play: Play) -> None:
    async def usage(asked: Asked) -> None:
        await asked.sized(b'{"usage":{"input_tokens":3,"output_tokens":4}}')

    async def stream(asked: Asked) -> None:
        await asked.begin_events()
        await asked.chunk(b'data: {"usage":{"input_tokens":3,"output_tokens":4}}\n\n')
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("a-1"), model="a", operations=BOTH))
        await world.get("/v1/responses/r")
        engine.script = stream
        await world.get("/v1/responses/r?stream=true")
        await until(lambda: world.controller.metered(metrics.REQUESTS.name) == {("a", "responses", "", "200"): (2.0,)})
        assert world.controller.metered(metrics.TOKENS.name) == {}

    play(scene)


def test_a_large_one_comes_as_it_is(play: Play) -> None:
    video = bytes(range(256)) * (4 << 12)

    async def content(asked: Asked) -> None:
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % len(video))
        await asked.say(video)

    async def scene(world: World) -> None:
        other, engine = await world.engine(knows()), await world.engine(content)
        await world.controller.publish(route(other.target("a-1"), engine.target("a-2"), operations=BOTH))
        assert (await world.get("/v1/videos/v/content")).body == video

    play(scene)


def test_who_leaves_while_it_is_looked_for_leaves_nothing(play: Play) -> None:
    async def stall(asked: Asked) -> None:
        await asked.gone()

    async def scene(world: World) -> None:
        first, second = await world.engine(knows()), await world.engine(stall)
        await world.controller.publish(
            route(first.target("a-1", slot=1), second.target("a-2", slot=2), operations=BOTH)
        )
        caller = await world.call()
        caller.get("/v1/responses/r")
        await until(lambda: second.asked)
        caller.leave()
        await world.rests()

    play(scene)


def test_what_is_made_goes_where_models_are_named(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        await world.controller.publish(route(engine.target("a-1", "org/a"), model="a", operations=BOTH))
        for path in ("/v1/responses", "/v1/videos"):
            answered = await world.post(path, b'{"model":"a","input":[ ]}')
            assert answered.body == b'{"model":"org/a","input":[ ]}'
        assert [asked.line.split(" ")[1] for asked in engine.asked] == ["/v1/responses", "/v1/videos"]

    play(scene)

"""What keys and models may use: taken when a request begins, given back exactly once however it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelgrid.spec import AccessKey, Choice, Quota, Route, Unavailable, Virtual
from unit.gateway.world import Answered, Asked, Engine, Play, Raw, Script, World, echo, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'
USAGE = b'{"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42}}'
KEY_SLOT, MODEL_SLOT, REAL_SLOT, REPLICA_SLOT, OTHER_SLOT = 1, 2, 3, 4, 5
ANN = "Authorization: Bearer ann\r\n"


def key(name: str = "ann", quota: Quota | None = None, models: tuple[str, ...] | None = None) -> AccessKey:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return AccessKey(id=name, name=name, sha256=digest, slot=KEY_SLOT, quota=quota, models=models)


def tokens_used(world: World, slot: int) -> int:
    """In this minute and the last one."""
    words = world.counts.rows()[1]  # the worker's; the first is the test's own
    return words[slot * 8 + 5] + words[slot * 8 + 6]


def requests_used(world: World, slot: int) -> int:
    words = world.counts.rows()[1]
    return words[slot * 8 + 3] + words[slot * 8 + 4]


def error_of(answered: Answered) -> tuple[int, str]:
    error = json.loads(answered.body)["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    return answered.status, error["code"]


async def usage(asked: Asked) -> None:
    await asked.sized(USAGE)


async def stream(asked: Asked) -> None:
    await asked.begin_events()
    await asked.chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    await asked.chunk(b"data: " + USAGE + b"\n\n")
    await asked.chunk(b"data: [DONE]\n\n")
    await asked.chunk(b"")


async def stall(asked: Asked) -> None:
    await asked.gone()


async def drop(asked: Asked) -> None:
    asked.drop()


async def begin_and_stall(asked: Asked) -> None:
    await asked.begin_events()
    await asked.chunk(b"data: 1\n\n")
    await asked.gone()


async def begin_and_drop(asked: Asked) -> None:
    await asked.begin_events()
    await asked.chunk(b"data: 1\n\n")
    asked.drop()


async def fail(asked: Asked) -> None:
    await asked.sized(b"{}", "500 Oops")


def test_requests_of_a_key_have_a_limit_and_the_refusal_says_when_to_come_again(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), keys=(key(quota=Quota(requests_per_minute=2)),))
        assert [(await world.post(CHAT, BODY, ANN)).status for _ in range(2)] == [200, 200]
        answered = await world.post(CHAT, BODY, ANN)
        assert error_of(answered) == (429, "rate_limit_exceeded")
        assert 1 <= int(answered.headers["retry-after"]) <= 120
        assert "the key 'ann' may have 2 requests a minute" in json.loads(answered.body)["error"]["message"]
        assert len(engine.asked) == 2
        await world.rests()

    play(scene)


def test_a_refusal_has_the_shape_that_anthropics_client_reads(play: Play) -> None:
    async def scene(world: World) -> None:
        no = Quota(requests_per_minute=0)
        await world.controller.publish(route(operations=("messages",)), keys=(key(quota=no),))
        answered = await world.post("/v1/messages", BODY, "X-Api-Key: ann\r\n")
        assert answered.status == 429
        assert "retry-after" in answered.headers
        assert json.loads(answered.body)["error"]["type"] == "rate_limit_error"

    play(scene)


def test_tokens_are_spent_once_by_key_and_model_and_the_next_request_is_refused(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        engine.once = [stream]
        fifty = Quota(tokens_per_minute=50)
        models = route(engine.target("m-1"), slot=MODEL_SLOT, quota=Quota(tokens_per_minute=1000))
        await world.controller.publish(models, keys=(key(quota=fifty),))
        assert (await world.post(CHAT, BODY, ANN)).is_whole
        assert (tokens_used(world, KEY_SLOT), tokens_used(world, MODEL_SLOT)) == (42, 42)
        assert (await world.post(CHAT, BODY, ANN)).status == 200
        assert (tokens_used(world, KEY_SLOT), tokens_used(world, MODEL_SLOT)) == (84, 84)
        answered = await world.post(CHAT, BODY, ANN)
        assert error_of(answered) == (429, "rate_limit_exceeded")
        assert b"may have 50 tokens a minute" in answered.body
        await world.rests()

    play(scene)


def test_tokens_of_an_answer_that_comes_in_parts_are_spent_too(play: Play) -> None:
    async def parts(asked: Asked) -> None:
        text = b'{"choices":[{"text":"%b"}],' % (b"x" * 200_000)
        body = text + USAGE[1:]
        await asked.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asked.chunk(body[:100])
        await until(lambda: True)
        await asked.chunk(body[100:-20])
        await asked.chunk(body[-20:])
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        engine = await world.engine(parts)
        models = route(engine.target("m-1"), slot=MODEL_SLOT, quota=Quota(tokens_per_minute=1000))
        await world.controller.publish(models)
        assert (await world.post(CHAT, BODY)).is_whole
        assert tokens_used(world, MODEL_SLOT) == 42

    play(scene)


Ending = Callable[[World, Raw, Engine], Awaitable[None]]


async def whole(world: World, caller: Raw, engine: Engine) -> None:
    assert (await caller.answer()).status == 200


async def refused(world: World, caller: Raw, engine: Engine) -> None:
    assert (await caller.answer()).status >= 400


async def leaves(world: World, caller: Raw, engine: Engine) -> None:
    await until(lambda: engine.asked)
    await until(lambda: world.counts.in_flight(REPLICA_SLOT) == 1)
    caller.leave()


async def leaves_in_the_midst(world: World, caller: Raw, engine: Engine) -> None:
    assert (await caller.head()).status == 200
    caller.leave()


async def breaks(world: World, caller: Raw, engine: Engine) -> None:
    answered = await caller.answer()
    assert not answered.is_whole


async def drains(world: World, caller: Raw, engine: Engine) -> None:
    await until(lambda: engine.asked)
    world.told.set()
    await caller.answer()


@pytest.mark.parametrize("is_virtual", [False, True])
@pytest.mark.parametrize(
    ("script", "ending", "options"),
    [
        (usage, whole, {}),
        (stream, whole, {}),
        (fail, refused, {}),
        (stall, leaves, {}),
        (begin_and_stall, leaves_in_the_midst, {}),
        (begin_and_drop, breaks, {}),
        (stall, refused, {"first_byte_timeout_s": 0.1}),
        (begin_and_stall, breaks, {"idle_timeout_s": 0.1}),
        (stall, drains, {"grace_s": 0.1}),
        (begin_and_stall, drains, {"grace_s": 0.1}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_however_a_request_ends_nothing_stays_taken(
    play: Play, script: Script, ending: Ending, options: dict[str, float], is_virtual: bool
) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(script)
        await world.controller.publish(*limited(engine, is_virtual), keys=(key(quota=Quota(concurrency=1)),))
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        await ending(world, caller, engine)
        await world.rests()
        if not world.told.is_set():  # it was one at once, and could be again
            engine.script = echo
            assert (await world.post(CHAT, BODY, ANN)).status == 200
            await world.rests()

    play(scene, **options)


def limited(engine: Engine, is_virtual: bool, *, is_warm: bool = True) -> tuple[Route, ...]:
    """One request at once for each name."""
    once = Quota(concurrency=1, requests_per_minute=100)
    targets = [engine.target("m-1", slot=REPLICA_SLOT)] if is_warm else []
    if not is_virtual:
        return (route(*targets, slot=MODEL_SLOT, quota=once),)
    name = route(slot=MODEL_SLOT, quota=once, virtual=Virtual(choices=(Choice(model="real"),)))
    return (name, route(*targets, model="real", slot=REAL_SLOT, quota=once))


@pytest.mark.parametrize("is_virtual", [False, True])
def test_a_place_is_kept_while_waiting_and_given_back_on_leaving(play: Play, is_virtual: bool) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        keys = (key(quota=Quota(concurrency=5)),)
        await world.controller.publish(*limited(engine, is_virtual, is_warm=False), keys=keys)
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        await until(lambda: world.controller.demands)
        assert world.counts.in_flight(KEY_SLOT) == 1
        assert error_of(await world.post(CHAT, BODY, ANN)) == (429, "rate_limit_exceeded")
        assert world.counts.in_flight(KEY_SLOT) == 1
        caller.leave()
        await world.rests()
        await world.controller.publish(*limited(engine, is_virtual), keys=keys)
        assert (await world.post(CHAT, BODY, ANN)).status == 200
        await world.rests()

    play(scene)


@pytest.mark.parametrize("is_virtual", [False, True])
def test_a_request_that_is_sent_again_is_one_request(play: Play, is_virtual: bool) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        engine.once = [drop]
        routes = limited(engine, is_virtual)
        await world.controller.publish(*routes, keys=(key(quota=Quota(concurrency=1, requests_per_minute=9)),))
        assert (await world.post(CHAT, BODY, ANN)).status == 200
        assert len(engine.asked) == 2
        used = [requests_used(world, slot) for slot in (KEY_SLOT, MODEL_SLOT, *([REAL_SLOT] if is_virtual else []))]
        assert used == [1] * len(used)
        await world.rests()

    play(scene)


def test_what_the_second_gate_refuses_counts_for_nothing_at_the_first(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        no = Quota(requests_per_minute=0)
        keys = (key(quota=Quota(concurrency=1, requests_per_minute=5)),)
        await world.controller.publish(route(engine.target("m-1"), slot=MODEL_SLOT, quota=no), keys=keys)
        for _ in range(10):
            answered = await world.post(CHAT, BODY, ANN)
            assert error_of(answered) == (429, "rate_limit_exceeded")
            assert b"the model m may have 0 requests" in answered.body
        assert (requests_used(world, KEY_SLOT), world.counts.in_flight(KEY_SLOT)) == (0, 0)

    play(scene)


def test_a_model_that_was_tried_in_vain_has_its_place_back(play: Play) -> None:
    async def scene(world: World) -> None:
        sick, well = await world.engine(fail), await world.engine(usage)
        quota = Quota(concurrency=1, requests_per_minute=9, tokens_per_minute=1000)
        name = route(slot=MODEL_SLOT, virtual=Virtual(choices=(Choice(model="sick"), Choice(model="well"))))
        await world.controller.publish(
            name,
            route(sick.target("s-1"), model="sick", slot=REAL_SLOT, quota=quota),
            route(well.target("w-1"), model="well", slot=OTHER_SLOT, quota=quota),
        )
        assert (await world.post(CHAT, BODY)).status == 200
        assert (requests_used(world, REAL_SLOT), requests_used(world, OTHER_SLOT)) == (0, 1)
        assert (tokens_used(world, REAL_SLOT), tokens_used(world, OTHER_SLOT)) == (0, 42)
        await world.rests()

    play(scene)


@pytest.mark.parametrize(
    "off", [{"unavailable": Unavailable(why="too large", retry_after_s=1)}, {"queue": 0}, {"wait_s": 0.05}]
)
def test_who_finds_no_replica_has_taken_nothing(play: Play, off: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        once = Quota(concurrency=1)
        models = route(slot=MODEL_SLOT, quota=once, **off)
        await world.controller.publish(models, keys=(key(quota=once),))
        for _ in range(3):
            assert (await world.post(CHAT, BODY, ANN)).status == 503
        await world.rests()

    play(scene)


def test_a_body_that_cant_be_changed_takes_nothing(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        once = Quota(concurrency=1)
        models = route(engine.target("m-1", "org/m", slot=REPLICA_SLOT), slot=MODEL_SLOT, quota=once)
        await world.controller.publish(models, keys=(key(quota=once),))
        body = b'{"model":"m",' + b'"model":"m",' * 2000 + b'"x":1}'
        for _ in range(3):
            assert (await world.post(CHAT, body, ANN)).status == 400
        await world.rests()
        assert (await world.post(CHAT, BODY, ANN)).status == 200

    play(scene)


def test_a_newer_table_leaves_what_is_used_as_it_is(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        routes = limited(engine, is_virtual=False)
        keys = (key(quota=Quota(concurrency=1)),)
        await world.controller.publish(*routes, keys=keys)
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        await until(lambda: engine.asked)
        await world.controller.publish(*routes, keys=keys)
        assert error_of(await world.post(CHAT, BODY, ANN)) == (429, "rate_limit_exceeded")
        await world.controller.publish(*routes, keys=(key(quota=None),))
        caller.leave()
        await world.rests()

    play(scene)


def test_a_key_for_some_models_sees_and_uses_these_alone(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        models = [route(engine.target(f"{name}-1"), model=name, aliases=(f"{name}{name}",)) for name in "ab"]
        await world.controller.publish(*models, keys=(key(models=("a",)), key("boss")))
        listed = json.loads((await world.get("/v1/models", ANN)).body)["data"]
        assert [model["id"] for model in listed] == ["a"]
        everything = json.loads((await world.get("/v1/models", "Authorization: Bearer boss\r\n")).body)["data"]
        assert [model["id"] for model in everything] == ["a", "b"]
        for name, status in (("a", 200), ("aa", 200), ("b", 403), ("bb", 403)):
            assert (await world.post(CHAT, b'{"model":"%b"}' % name.encode(), ANN)).status == status
            assert (await world.post(f"/v1/chat/{name}", b"hi", ANN)).status in (status, 502)
            assert (await world.get(f"/v1/models/{name}", ANN)).status == status
        assert error_of(await world.post(CHAT, b'{"model":"b"}', ANN)) == (403, "model_not_allowed")
        assert {json.loads(asked.body)["model"] for asked in engine.asked} <= {"a", "aa", "m"}

    play(scene)


def test_a_key_for_some_models_learns_no_other_names_from_errors(play: Play) -> None:
    everything = ("chat", "embeddings", "transcriptions", "videos", "realtime")
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--b--\r\n'
    is_form = f"{ANN}Content-Type: multipart/form-data; boundary=b\r\n"
    socket = f"{ANN}Connection: Upgrade\r\nUpgrade: websocket\r\n"

    async def scene(world: World) -> None:
        await world.controller.publish(
            *(route(model=name, operations=("chat", "videos")) for name in ("mine-a", "mine-b")),
            route(model="secret", operations=everything, aliases=("nick",), endpoint="/own"),
            keys=(key(models=("mine-a", "mine-b")),),
        )
        asked = {
            "an unknown model": await world.post(CHAT, b'{"model":"no"}', ANN),
            "one in a form": await world.post("/v1/audio/transcriptions", form % b"no", is_form),
            "one in a path": await world.get("/v1/models/no", ANN),
            "one for plain text": await world.post("/v1/chat/no", b"hi", ANN),
            "another operation": await world.post("/v1/embeddings", b'{"model":"mine-a"}', ANN),
            "another one of a form": await world.post("/v1/audio/transcriptions", form % b"mine-a", is_form),
            "a list of no model": await world.get("/v1/videos", ANN),
            "a list of an unknown one": await world.get("/v1/videos?model=no", ANN),
            "a socket to no model": await world.get("/v1/realtime", socket),
            "a socket to a wrong one": await world.get("/v1/realtime?model=mine-a", socket),
            "an alias": await world.post(CHAT, b'{"model":"nick"}', ANN),
            "an alias in a path": await world.get("/v1/models/nick", ANN),
            "a path of its own": await world.post("/own", b"{}", ANN),
        }
        for what, answered in asked.items():
            assert answered.status in (400, 403, 404), what
            assert b"secret" not in answered.body, what
        assert b"there are mine-a, mine-b (" in asked["an unknown model"].body
        assert b"(for embeddings, no model that you may use serves it)" in asked["another operation"].body
        assert b"there are mine-a, mine-b (" in asked["a list of no model"].body
        assert b"cannot use nick: " in asked["an alias"].body
        assert b"cannot use /own: " in asked["a path of its own"].body

    play(scene)


def test_a_key_for_some_models_learns_no_other_names_when_its_model_is_gone(play: Play) -> None:
    async def scene(world: World) -> None:
        keys = (key(models=("m",)),)
        secret = route(model="secret")
        await world.controller.publish(route(), secret, keys=keys)
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        await until(lambda: world.controller.demands)
        await world.controller.publish(secret, keys=keys)
        answered = await caller.answer()
        assert error_of(answered) == (404, "model_not_found")
        assert b"secret" not in answered.body
        assert b"there is none that you may use" in answered.body

    play(scene)


def test_a_key_for_a_name_over_models_may_use_what_stands_behind_by_that_name_only(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(*limited(engine, is_virtual=True), keys=(key(models=("m",)),))
        assert (await world.post(CHAT, BODY, ANN)).status == 200
        assert (await world.post(CHAT, b'{"model":"real"}', ANN)).status == 403

    play(scene)


def test_a_key_that_is_revoked_ends_nothing_that_has_begun_and_lets_nothing_more_in(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(begin_and_stall)
        model = route(engine.target("m-1", slot=REPLICA_SLOT))
        await world.controller.publish(model, keys=(key(quota=Quota(concurrency=3)), key("boss")))
        caller = await world.call()
        caller.post(CHAT, BODY, ANN)
        assert (await caller.head()).status == 200
        await world.controller.publish(model, keys=(key("boss"),))
        assert error_of(await world.post(CHAT, BODY, ANN)) == (401, "invalid_api_key")
        await engine.asked[0].chunk(b"")
        assert [await caller.chunk(), await caller.chunk()] == [b"data: 1\n\n", b""]
        await world.rests()
        caller.post(CHAT, BODY, ANN)
        assert error_of(await caller.answer()) == (401, "invalid_api_key")

    play(scene)

"""What the controller is told that was used: once for each request, of whoever it was, told or estimated."""

from __future__ import annotations

import hashlib

import msgspec

from modelgrid.spec import AccessKey, Choice, Load, Virtual
from modelgrid.spec.usage import Counts, Legacy
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"ann").hexdigest(), slot=1)
ANN = "Authorization: Bearer ann\r\n"
Told = dict[tuple[str, str, str], Counts]


def told(world: World) -> Told:
    """What was told last of each, without the time that it took."""
    found: Told = {}
    for load in world.controller.of(Load):
        for used in load.used:
            values = [getattr(used.counts, name) for name in used.counts.__struct_fields__]
            values[3] = 0.0
            found[used.key, used.model, used.operation] = Counts(*values)
    return found


async def until_told(world: World, expected: Told) -> None:
    try:
        await until(lambda: told(world) == expected)
    except TimeoutError:
        assert told(world) == expected


async def usage(asked: Asked) -> None:
    await asked.sized(
        b'{"usage":{"prompt_tokens":30,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":8}}}'
    )


async def silent(asked: Asked) -> None:
    await asked.sized(b'{"choices":[{"message":{"content":"12345678"}}]}')


async def silent_stream(asked: Asked) -> None:
    await asked.begin_events()
    for _ in range(3):
        await asked.chunk(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"a" * 300))
    await asked.gone()


async def pictures(asked: Asked) -> None:
    await asked.sized(
        b'{"created":1,"data":[{"b64_json":"aGVsbG8="},{"url":"https://x/y.png"}],"usage":{"input_tokens":3}}'
    )


async def lasting(asked: Asked) -> None:
    await asked.sized(b'{"id":"v","object":"video","seconds":"4","status":"queued"}')


async def fails(asked: Asked) -> None:
    await asked.sized(b'{"error":{"message":"no"}}', status="400 Bad Request")


def test_tokens_that_an_engine_tells_are_its_keys(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("m-1"), aliases=("alias",)), keys=(KEY,))
        await world.post(CHAT, BODY, ANN)
        await world.post(CHAT, b'{"model":"alias"}', ANN)
        await until_told(world, {("1", "m", "chat"): Counts(requests=2, input=60, output=24, cached=16)})

    play(scene)


def test_what_an_engine_does_not_tell_is_estimated_by_length(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(silent)
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await world.post("/v1/embeddings", BODY)
        picture = BODY.replace(b"hello", b"data:image/png;base64," + b"A" * 100_000)
        await world.post(CHAT, picture)
        tokens = -(-len(BODY) // 4)
        no_picture = -(-(len(picture) - len(";base64,") - 100_000) // 4)
        await until_told(
            world,
            {
                ("", "m", "chat"): Counts(requests=2, estimated_input=tokens + no_picture, estimated_output=4),
                ("", "m", "embeddings"): Counts(requests=1, estimated_input=tokens),
            },
        )

    play(scene)


def test_of_a_stream_that_its_caller_leaves_what_came_is_counted(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(silent_stream)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await caller.head()
        seen = b""
        while seen.count(b"data:") < 3:
            seen += await caller.chunk()
        caller.leave()
        tokens = -(-len(BODY) // 4)
        await until_told(
            world, {("", "m", "chat"): Counts(requests=1, left=1, estimated_input=tokens, estimated_output=3)}
        )

    play(scene)


def test_pictures_seconds_and_films_are_counted_as_such(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(pictures)
        operations = ("images", "videos", "transcriptions")
        await world.controller.publish(route(engine.target("m-1"), operations=operations))
        await world.post("/v1/images/generations", BODY)
        engine.script = lasting
        await world.post("/v1/videos", BODY)
        await until_told(
            world,
            {
                ("", "m", "images"): Counts(requests=1, input=3, images=2),
                ("", "m", "videos"): Counts(requests=1, media_s=4.0),
            },
        )

    play(scene)


def test_requests_that_fail_and_that_never_became_a_models_are_counted_too(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(fails)
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await world.post(CHAT, b'{"model":"nobody"}')
        await world.post(CHAT, b"no JSON")
        await until_told(
            world,
            {("", "m", "chat"): Counts(requests=1, errors=1), ("", "", "chat"): Counts(requests=2, errors=2)},
        )

    play(scene)


def test_behind_a_virtual_model_the_real_one_is_paid_for(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        virtual = route(model="any", virtual=Virtual(choices=(Choice(model="m"),)))
        await world.controller.publish(route(engine.target("m-1")), virtual)
        await world.post(CHAT, b'{"model":"any"}')
        await until_told(world, {("", "m", "chat"): Counts(requests=1, input=30, output=12, cached=8)})

    play(scene)


def test_a_new_controller_is_told_what_was_used_while_none_was_there(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await until(lambda: told(world))
        await world.controller.leave()
        world.controller.heard.clear()
        await world.post(CHAT, BODY)
        await world.controller.listen()
        await until_told(world, {("", "m", "chat"): Counts(requests=2, input=60, output=24, cached=16)})
        assert len({hello.incarnation for hello in world.controller.hellos}) == 1

    play(scene)


def test_a_worker_that_ends_leaves_all_of_it_for_a_controller_that_is_away(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        await until(lambda: told(world))
        await world.controller.leave()
        await world.post(CHAT, BODY)
        world.told.set()
        await world.worker
        (path,) = world.options.table_file.parent.glob("usage-*.json")
        assert path.stat().st_mode & 0o077 == 0
        (left,) = msgspec.json.decode(path.read_bytes(), type=Legacy).used
        assert (left.counts.requests, left.counts.input) == (2, 60)

    play(scene)


def test_while_the_controller_is_away_what_was_used_is_kept_in_a_file(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(usage)
        await world.controller.publish(route(engine.target("m-1")))
        await world.controller.leave()
        await world.post(CHAT, BODY)
        await until(lambda: list(world.options.table_file.parent.glob("usage-*.json")))

    play(scene)

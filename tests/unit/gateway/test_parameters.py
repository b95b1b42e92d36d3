"""What a model does to the fields of a request, on its way; nothing else of the body is touched."""

from __future__ import annotations

import json

import pytest

from modelgrid.spec import Parameters
from unit.gateway.world import Play, World, route

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("parameters", "sent", "arrives"),
    [
        (Parameters(strip=("user",)), b'{"model":"m", "user":"x", "a":1.50}', b'{"model":"m", "a":1.50}'),
        (Parameters(default={"n": "2"}), b'{"model":"m","a":[ ]}', {"model": "m", "a": [], "n": 2}),
        (Parameters(default={"n": "2"}), b'{"model":"m","n" : 5}', b'{"model":"m","n" : 5}'),
        (Parameters(set={"n": "2"}), b'{"model":"m","n" : 5, "a":1e2}', b'{"model":"m","n" : 2, "a":1e2}'),
        (Parameters(cap={"max_tokens": 64.0}), b'{"max_tokens":1000,"model":"m"}', b'{"max_tokens":64,"model":"m"}'),
        (Parameters(cap={"max_tokens": 64.0}), b'{"max_tokens":10,"model":"m"}', b'{"max_tokens":10,"model":"m"}'),
        (Parameters(cap={"max_tokens": 64.0}), b'{"model":"m"}', b'{"model":"m"}'),
    ],
)
def test_fields_are_stripped_set_capped_and_filled_in(
    play: Play, parameters: Parameters, sent: bytes, arrives: bytes | dict[str, object]
) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1"), parameters=parameters))
        body = (await world.post(CHAT, sent)).body
        assert body == arrives if isinstance(arrives, bytes) else json.loads(body) == arrives
        assert engine.asked[0].headers["content-length"] == str(len(body))

    play(scene)


def test_together_with_the_models_other_name(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        parameters = Parameters(set={"model": '"no"', "top_k": "7"}, cap={"n": 1.0})
        await world.controller.publish(route(engine.target("m-1", "org/served"), aliases=("x",), parameters=parameters))
        for name in ("m", "x"):
            body = b'{"x":"model","model":"%b","n":3,"top_k":1}' % name.encode()
            assert (await world.post(CHAT, body)).body == b'{"x":"model","model":"org/served","n":1,"top_k":7}'

    play(scene)


def test_they_hold_for_text_too(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1"), parameters=Parameters(default={"n": "1"})))
        await world.post("/v1/chat/m", b"hi")
        assert json.loads(engine.asked[0].body)["n"] == 1

    play(scene)


def test_a_newer_table_has_them_as_they_are_now(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        for limit in (5, 3):
            parameters = Parameters(cap={"n": float(limit)})
            await world.controller.publish(route(engine.target("m-1"), parameters=parameters))
            assert json.loads((await world.post(CHAT, b'{"model":"m","n":9}')).body)["n"] == limit
        await world.controller.publish(route(engine.target("m-1")))
        assert json.loads((await world.post(CHAT, b'{"model":"m","n":9}')).body)["n"] == 9

    play(scene)


def test_a_path_of_its_own_has_none(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        mine = route(engine.target("m-1", "org/m"), endpoint="/v1/mine/generate", parameters=Parameters(set={"n": "1"}))
        await world.controller.publish(mine)
        assert (await world.post("/v1/mine/generate", b"not JSON at all")).body == b"not JSON at all"

    play(scene)

"""Conversations find the replica that holds their cache, over four replicas of one model."""

from __future__ import annotations

import json

import pytest

from modelgrid.spec import Choice, Route, Routing, Virtual
from unit.gateway.world import Asked, Engine, Play, World, echo, route, until

CHAT = "/v1/chat/completions"
SESSION = Routing(policy="session", session=("header:x-session-id", "body:metadata.session", "body:user"))
PREFIX = Routing(policy="prefix")


async def four(world: World) -> list[Engine]:
    return [await world.engine() for _ in range(4)]


def model(engines: list[Engine], routing: Routing, **more: object) -> Route:
    targets = [engine.target(f"m-{number}", slot=number) for number, engine in enumerate(engines, 1)]
    return route(*targets, routing=routing, operations=("chat", "completions"), **more)  # type: ignore[arg-type]


def turns(conversation: int, count: int) -> bytes:
    """The request of a conversation's turn `count`."""
    messages = [
        {"role": "system", "content": "You are kind. " * 50},
        {"role": "user", "content": f"Conversation {conversation} begins"},
    ]
    for turn in range(count):
        messages += [{"role": "assistant", "content": f"answer {turn}"}, {"role": "user", "content": f"more {turn}"}]
    return json.dumps({"model": "m", "messages": messages}).encode()


async def served_by(world: World, engines: list[Engine], body: bytes, headers: str = "") -> int:
    before = [len(engine.asked) for engine in engines]
    assert (await world.post(CHAT, body, headers)).status == 200
    moved = [number for number, engine in enumerate(engines) if len(engine.asked) > before[number]]
    assert len(moved) == 1
    return moved[0]


def test_without_a_policy_all_take_turns(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        await world.controller.publish(model(engines, Routing()))
        for turn in range(8):
            await served_by(world, engines, turns(1, turn))
        assert [len(engine.asked) for engine in engines] == [2, 2, 2, 2]

    play(scene)


def test_each_turn_of_a_conversation_finds_the_replica_of_its_beginning(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        await world.controller.publish(model(engines, PREFIX))
        homes: list[int] = []
        for conversation in range(24):
            found = {await served_by(world, engines, turns(conversation, turn)) for turn in range(3)}
            assert len(found) == 1
            homes += found
        assert set(homes) == {0, 1, 2, 3}  # and they are spread

    play(scene)


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("X-Session-Id: {}\r\n", b"{}"),
        ("", b'{"user":"%b"}'),
        ("", b'{"metadata":{"session":"%b"}}'),
    ],
)
def test_a_session_is_found_in_a_header_or_in_the_body(play: Play, header: str, field: bytes) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        await world.controller.publish(model(engines, SESSION))
        homes: list[int] = []
        for session in range(24):
            name = f"session-{session}"
            body = json.loads(field % name.encode() if b"%b" in field else field) | {"model": "m"}
            found = {
                await served_by(world, engines, json.dumps(body | {"n": turn}).encode(), header.format(name))
                for turn in range(3)
            }
            assert len(found) == 1
            homes += found
        assert set(homes) == {0, 1, 2, 3}

    play(scene)


def test_without_a_session_all_take_turns(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        await world.controller.publish(model(engines, SESSION))
        for _ in range(8):
            await served_by(world, engines, b'{"model":"m"}')
        assert [len(engine.asked) for engine in engines] == [2, 2, 2, 2]

    play(scene)


def test_when_a_replica_goes_only_its_conversations_move_and_come_back_with_it(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        await world.controller.publish(model(engines, PREFIX))
        before = [await served_by(world, engines, turns(number, 1)) for number in range(24)]
        whole = model(engines, PREFIX)
        await world.controller.publish(route(*whole.targets[:3], routing=PREFIX, operations=("chat", "completions")))
        without = [await served_by(world, engines, turns(number, 2)) for number in range(24)]
        assert [home for home, was in zip(without, before, strict=True) if was != 3] == [
            was for was in before if was != 3
        ]
        assert 3 not in without
        await world.controller.publish(whole)
        assert [await served_by(world, engines, turns(number, 3)) for number in range(24)] == before

    play(scene)


def test_a_conversation_whose_replica_is_lost_goes_on_elsewhere(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        await world.controller.publish(model(engines, PREFIX))
        home = await served_by(world, engines, turns(1, 0))
        await engines[home].refuse()
        second = {await served_by(world, engines, turns(1, turn)) for turn in range(1, 4)}
        assert len(second) == 1
        assert home not in second
        await world.rests()

    play(scene)


def test_a_busy_conversation_doesnt_bury_its_replica(play: Play) -> None:
    async def stall(asked: Asked) -> None:
        await asked.gone()

    async def scene(world: World) -> None:
        engines = await four(world)
        for engine in engines:
            engine.script = stall
        await world.controller.publish(model(engines, PREFIX))
        callers = [await world.call() for _ in range(32)]
        for caller in callers:
            caller.post(CHAT, turns(1, 0))
        await until(lambda: sum(len(engine.asked) for engine in engines) == 32)
        assert max(len(engine.asked) for engine in engines) <= PREFIX.slack * 32 / 4 + 1
        for caller in callers:
            caller.leave()
        await world.rests()

    play(scene)


def test_a_conversation_stays_with_its_model_behind_a_name_over_several(play: Play) -> None:
    async def scene(world: World) -> None:
        engines = await four(world)
        halves = [
            route(*(engine.target(f"{name}-{id(engine)}") for engine in pair), model=name, routing=PREFIX)
            for name, pair in (("a", engines[:2]), ("b", engines[2:]))
        ]
        name = route(
            model="m",
            routing=PREFIX,
            virtual=Virtual(choices=(Choice(model="a"), Choice(model="b")), choose="weight"),
        )
        await world.controller.publish(name, *halves)
        homes: list[int] = []
        for conversation in range(24):
            found = {await served_by(world, engines, turns(conversation, turn)) for turn in range(3)}
            assert len(found) == 1
            homes += found
        assert {home // 2 for home in homes} == {0, 1}

    play(scene)


def test_what_cant_be_read_is_served_all_the_same(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        for routing in (PREFIX, SESSION):
            await world.controller.publish(model([engine, engine], routing))
            for body in (b'{"model":"m","messages":7}', b'{"model":"m","user":{"a":[]}}', b'{"model":"m","user":NaN}'):
                assert (await world.post(CHAT, body)).body == body

    play(scene)

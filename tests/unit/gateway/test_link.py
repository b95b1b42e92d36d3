"""Tables in, load out: what holds between a worker and the controller."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import perf_counter

from msgspec.structs import replace

from modelgrid.gateway.link import read_table
from modelgrid.spec import Load, RoutingTable
from modelgrid.spec.messages import encode
from unit.gateway.world import Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'


async def stall(asked: Asked) -> None:
    await asked.gone()


async def models(world: World) -> list[str]:
    return [model["id"] for model in json.loads((await world.get("/v1/models")).body)["data"]]


def test_a_worker_says_who_it_is_first(play: Play) -> None:
    async def scene(world: World) -> None:
        await until(lambda: world.controller.heard)
        assert world.controller.heard[0] == world.controller.hellos[0]
        assert world.controller.hellos[0].worker == "w1"

    play(scene)


def test_a_lower_table_is_ignored(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(model="new"), number=7)
        world.controller.say(RoutingTable(number=6, routes=(route(model="old"),)))
        await world.controller.publish(route(model="new"), route(model="newer"), number=8)
        assert await models(world) == ["new", "newer"]
        assert 6 not in [load.table for load in world.controller.of(Load)]

    play(scene)


def test_the_first_table_of_a_new_controller_is_taken_whatever_its_number(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(model="old"), number=70)
        await world.controller.leave()
        await world.controller.listen()
        await world.controller.publish(route(model="new"), number=1)
        assert await models(world) == ["new"]

    play(scene)


def test_while_the_controller_is_away_the_last_table_serves_and_what_ended_is_told_later(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")), number=5)
        await world.controller.leave()
        world.controller.heard.clear()
        for _ in range(3):
            assert (await world.post(CHAT, BODY)).status == 200
        caller = await world.call()
        caller.post(CHAT, b'{"model":"cold"}')
        assert (await caller.answer()).status == 404
        await world.controller.listen()
        await until(lambda: world.controller.of(Load))
        first = replace(world.controller.of(Load)[0], meters=(), used=())
        assert first == Load(table=5, in_flight={}, requests={"m": 3}, arrived={"m": 3})

    play(scene)


def test_demand_is_told_to_a_new_controller(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: world.controller.demands)
        await world.controller.leave()
        world.controller.heard.clear()
        await world.controller.listen()
        await until(lambda: world.controller.demands)
        assert world.controller.demands[0].waiting == 1

    play(scene)


def test_load_names_what_is_in_flight_until_its_answer_has_ended(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1"), engine.target("m-2")))
        callers = [await world.call() for _ in range(3)]
        for caller in callers:
            caller.post(CHAT, BODY)
        await until(lambda: sorted(world.controller.load.values()) == [1, 2])
        for asked in engine.asked:
            await asked.begin_events()
            await asked.chunk(b"data: 1\n\n")
        heard = len(world.controller.of(Load))
        await until(lambda: len(world.controller.of(Load)) > heard)
        assert sorted(world.controller.load.values()) == [1, 2]
        for asked in engine.asked:
            await asked.chunk(b"")
        await until(lambda: world.controller.load == {})
        assert sum(load.requests.get("m", 0) for load in world.controller.of(Load)) == 3

    play(scene)


def test_a_replica_that_a_table_leaves_out_gets_nothing_new_and_its_last_answer_ends(play: Play) -> None:
    async def scene(world: World) -> None:
        old, new = await world.engine(stall), await world.engine()
        await world.controller.publish(route(old.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: old.asked)
        number = await world.controller.publish(route(new.target("m-2")))
        assert world.controller.load == {"m-1": 1}
        for _ in range(3):
            assert (await world.post(CHAT, BODY)).status == 200
        assert len(old.asked) == 1
        await old.asked[0].sized(b'"last"')
        assert (await caller.answer()).body == b'"last"'
        await until(lambda: world.controller.load == {})
        assert world.controller.of(Load)[-1].table == number

    play(scene)


def test_each_table_is_answered_with_a_load(play: Play) -> None:
    async def scene(world: World) -> None:
        start = perf_counter()
        for _ in range(20):
            await world.controller.publish(route())
        assert perf_counter() - start < 5  # they don't wait for the one of each second

    play(scene)


def test_a_large_table_is_taken(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(*(route(model=f"model-{number}", why="x" * 500) for number in range(5000)))
        assert len(await models(world)) == 5000

    play(scene)


def test_a_line_that_is_no_table_is_overlooked(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(model="a"))
        world.controller.say_raw(b'{"type":"table"}\nnonsense\n')
        await world.controller.publish(route(model="b"))
        assert await models(world) == ["b"]
        assert len(world.controller.hellos) == 1

    play(scene)


def test_a_worker_starts_with_the_table_file(play: Play) -> None:
    async def scene(world: World) -> None:
        assert await models(world) == ["from-file"]

    play(scene, table=RoutingTable(number=3, routes=(route(model="from-file"),)), is_controlled=False)


def test_a_table_file_that_cant_be_read_is_no_table(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    assert read_table(file) is None
    file.write_bytes(b"{")
    assert read_table(file) is None
    table = RoutingTable(number=3)
    file.write_bytes(encode(table))
    assert read_table(file) == table


def test_connections_to_engines_that_a_table_leaves_out_are_closed(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        await world.post(CHAT, BODY)
        assert engine.open_connections == 1
        await world.controller.publish(route())
        await until(lambda: engine.open_connections == 0)
        await asyncio.sleep(0)

    play(scene)

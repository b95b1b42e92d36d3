"""The controller's end of the link, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from modelgrid.controller.link import Link
from modelgrid.spec import Demand, Hello, RoutingTable
from modelgrid.spec.messages import FromWorker, decode_table, encode
from unit.controller.stage import until

HELLO = encode(Hello(worker="w1", pid=7))


class Side:
    """The controller's side, and what it heard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[str, FromWorker]] = []
        self.lost: list[str] = []
        self.link = Link(lambda worker, message: self.heard.append((worker, message)), self.lost.append)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))


def play(scene: Callable[[Side], Awaitable[None]]) -> None:
    async def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
            side = Side(Path(folder) / "link.sock")
            side.path.touch()  # left by a controller that was killed
            async with side.link.listen(side.path):
                await asyncio.wait_for(scene(side), 15)
            assert not side.path.exists()

    asyncio.run(whole())


def test_only_this_user_may_open_it() -> None:
    async def scene(side: Side) -> None:
        assert stat.S_IMODE(side.path.stat().st_mode) == 0o600

    play(scene)


def test_a_worker_is_known_by_its_hello_and_told_the_table_in_force() -> None:
    async def scene(side: Side) -> None:
        side.link.publish(RoutingTable(number=4))
        reader, writer = await side.connect()
        writer.write(HELLO + encode(Demand(model="m", waiting=1, oldest_s=0.5)))
        assert decode_table(await reader.readline()).number == 4
        side.link.publish(RoutingTable(number=5))
        assert decode_table(await reader.readline()).number == 5
        await until(lambda: len(side.heard) == 2)
        assert side.heard == [
            ("w1/7", Hello(worker="w1", pid=7)),
            ("w1/7", Demand(model="m", waiting=1, oldest_s=0.5)),
        ]
        writer.close()
        await until(lambda: side.lost == ["w1/7"])

    play(scene)


def test_before_a_hello_nothing_is_heard_or_told() -> None:
    async def scene(side: Side) -> None:
        side.link.publish(RoutingTable(number=4))
        _, stranger = await side.connect()
        stranger.write(encode(Demand(model="m", waiting=1, oldest_s=0.5)))
        _, writer = await side.connect()
        writer.write(HELLO)
        await until(lambda: side.heard)
        assert side.heard == [("w1/7", Hello(worker="w1", pid=7))]
        stranger.close()
        writer.close()
        await until(lambda: side.lost == ["w1/7"])

    play(scene)


def test_a_line_that_is_no_message_ends_that_connection_alone() -> None:
    async def scene(side: Side) -> None:
        good_reader, good = await side.connect()
        good.write(encode(Hello(worker="good", pid=1)))
        for line in (b"{}\n", b"\xff\n", b"x" * (2 << 20)):
            reader, writer = await side.connect()
            writer.write(HELLO + line)
            with contextlib.suppress(ConnectionResetError):  # what it had not read yet was thrown away
                assert await reader.read() == b""
            await until(lambda: side.lost[-1:] == ["w1/7"])
            side.lost.clear()
            writer.close()
        side.link.publish(RoutingTable(number=6))
        assert decode_table(await good_reader.readline()).number == 6
        good.close()

    play(scene)


def test_a_worker_that_comes_twice_is_lost_only_with_its_last_connection() -> None:
    async def scene(side: Side) -> None:
        _, first = await side.connect()
        first.write(HELLO)
        await until(lambda: len(side.heard) == 1)
        reader, second = await side.connect()
        second.write(HELLO)
        await until(lambda: len(side.heard) == 2)
        first.close()
        side.link.publish(RoutingTable(number=6))
        assert decode_table(await reader.readline()).number == 6
        assert side.lost == []
        second.close()
        await until(lambda: side.lost == ["w1/7"])

    play(scene)

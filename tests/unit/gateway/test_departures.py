"""Who leaves while nothing is read from it is told of at once, and once."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from modelgrid.gateway.departures import Departures
from unit.gateway.world import until

Pair = tuple[socket.socket, socket.socket]  # ours, which nobody reads from, and the caller's
Scene = Callable[[Departures], Awaitable[None]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def play(scene: Scene) -> None:
    raised: list[object] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(context))
        departures = Departures(loop)
        try:
            await scene(departures)
        finally:
            departures.close()

    uvloop.run(whole())
    assert raised == []


def reset(theirs: socket.socket) -> None:
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()


async def turns() -> None:
    """Of the loop, in which what the kernel knows would be told."""
    for _ in range(3):
        await asyncio.sleep(0.005)


def fill(theirs: socket.socket) -> None:
    """Send until nobody takes more."""
    theirs.setblocking(False)
    try:
        while True:
            theirs.send(bytes(1 << 20))
    except BlockingIOError:
        pass


@pytest.mark.parametrize("is_full", [False, True])
def test_a_reset_is_told_also_where_much_is_unread(pair: Pair, is_full: bool) -> None:
    ours, theirs = pair
    told: list[bool] = []

    async def scene(departures: Departures) -> None:
        if is_full:
            fill(theirs)
        departures.watch(ours.fileno(), told.append)
        await turns()
        assert told == []
        reset(theirs)
        await until(lambda: told)
        await turns()
        assert told == [True]
        departures.forget(ours.fileno())  # twice is harmless

    play(scene)


def test_an_end_behind_what_came_is_told_once_and_then_the_reset(pair: Pair) -> None:
    ours, theirs = pair
    told: list[bool] = []

    async def scene(departures: Departures) -> None:
        theirs.send(b"unread")
        departures.watch(ours.fileno(), told.append)
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: told)
        await turns()
        assert told == [False]
        theirs.close()
        ours.send(b"are you there?")
        await until(lambda: len(told) > 1)
        assert told == [False, True]

    play(scene)


def test_who_left_before_it_was_watched_is_told_of(pair: Pair) -> None:
    ours, theirs = pair
    told: list[bool] = []

    async def scene(departures: Departures) -> None:
        reset(theirs)
        departures.watch(ours.fileno(), told.append)
        await until(lambda: told == [True])

    play(scene)


def test_who_is_forgotten_is_not_told_of_and_can_be_watched_again(pair: Pair) -> None:
    ours, theirs = pair
    first: list[bool] = []
    second: list[bool] = []

    async def scene(departures: Departures) -> None:
        departures.watch(ours.fileno(), first.append)
        departures.forget(ours.fileno())
        departures.watch(ours.fileno(), second.append)
        reset(theirs)
        await until(lambda: second)
        assert (first, second) == ([], [True])

    play(scene)


def test_who_is_forgotten_by_what_another_was_told_is_not_told_of(pair: Pair) -> None:
    ours, theirs = pair
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other_caller = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()

    async def scene(departures: Departures) -> None:
        def tell(name: str, rival: socket.socket) -> None:
            told.append(name)
            departures.forget(rival.fileno())

        reset(theirs)
        reset(other_caller)
        departures.watch(ours.fileno(), lambda _: tell("one", other))
        departures.watch(other.fileno(), lambda _: tell("other", ours))
        await until(lambda: told)
        await turns()
        assert len(told) == 1

    with other, other_caller:
        play(scene)

"""The thread of a service: turns, a bounded queue, batches, callers who leave, memory that runs out."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from modelgrid.services.errors import ServiceError
from modelgrid.services.meters import Meters
from modelgrid.services.work import Batcher, Caller, Turn, Work, streamed

DEADLINE_S = 20.0


class Gate:
    """Work that waits in the thread until it is let through."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, turn: Turn) -> str:
        self.entered.set()
        assert self.opened.wait(DEADLINE_S)
        turn.step(3, 28)
        return "done"


class Connection:
    """A caller's connection: closes when told to."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def receive(self) -> dict[str, object]:
        await self.closed.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request({"type": "http", "headers": []}, self.receive)


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def work(meters: Meters) -> Iterator[Work]:
    made = Work(3, meters, logging.getLogger("modelgrid.test"))
    yield made
    made.close()


def _refused() -> list[bytes]:
    raise ServiceError(400, "no such voice")


def value(meters: Meters, name: str) -> float:
    families = text_string_to_metric_families(meters.page().decode())
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0)


def test_turns_are_taken_one_after_the_other(work: Work) -> None:
    async def scenario() -> list[int]:
        active = 0

        def one(number: int) -> Callable[[Turn], int]:
            def compute(_: Turn) -> int:
                nonlocal active
                active += 1
                assert active == 1
                active -= 1
                return number

            return compute

        return list(await asyncio.gather(*(work.run(Caller(), one(number)) for number in range(3))))

    assert asyncio.run(scenario()) == [0, 1, 2]


def test_who_comes_to_a_full_queue_is_turned_away_and_the_rest_is_served(work: Work, meters: Meters) -> None:
    async def scenario() -> None:
        gate = Gate()
        first = asyncio.create_task(work.run(Caller(), gate))
        await until(gate.entered.is_set)
        waiting = [asyncio.create_task(work.run(Caller(), lambda _: "later")) for _ in range(3)]
        await until(lambda: value(meters, "modelgrid_service_requests_waiting") == 3)
        assert value(meters, "modelgrid_service_requests_running") == 1
        with pytest.raises(ServiceError) as refused:
            await work.run(Caller(), lambda _: "never")
        assert (refused.value.status_code, refused.value.code, refused.value.retry_s) == (503, "queue_full", 5)
        gate.opened.set()
        assert [await task for task in (first, *waiting)] == ["done", "later", "later", "later"]

    asyncio.run(scenario())


def test_a_caller_that_leaves_ends_the_work_at_its_next_step(
    work: Work, meters: Meters, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        gate, caller = Gate(), Caller()
        running = asyncio.create_task(work.run(caller, gate))
        await until(gate.entered.is_set)
        caller.leave()
        gate.opened.set()
        with pytest.raises(ServiceError, match="the caller left"):
            await running
        assert await work.run(Caller(), lambda _: "next") == "next"

    asyncio.run(scenario())
    assert caplog.messages == ["caller left: stopped after step 3 of 28"]
    assert value(meters, "modelgrid_service_requests_abandoned_total") == 1


def test_what_has_not_begun_is_not_begun_for_who_has_left(work: Work) -> None:
    async def scenario() -> None:
        gate, caller = Gate(), Caller()
        begun: list[Turn] = []
        first = asyncio.create_task(work.run(Caller(), gate))
        await until(gate.entered.is_set)
        second = asyncio.create_task(work.run(caller, begun.append))
        await asyncio.sleep(0)
        caller.leave()
        gate.opened.set()
        await first
        with pytest.raises(ServiceError):
            await second
        assert begun == []

    asyncio.run(scenario())


def test_a_task_that_is_cancelled_has_left(work: Work) -> None:
    async def scenario() -> None:
        gate, caller = Gate(), Caller()
        running = asyncio.create_task(work.run(caller, gate))
        await until(gate.entered.is_set)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert caller.has_left
        gate.opened.set()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you")],
)
def test_out_of_memory_is_an_answer_and_the_next_request_is_served(
    work: Work, meters: Meters, error: Exception
) -> None:
    def compute(turn: Turn) -> None:
        turn.step(1)
        raise error

    async def scenario() -> None:
        with pytest.raises(ServiceError) as told:
            await work.run(Caller(), compute)
        assert (told.value.status_code, told.value.code) == (507, "out_of_memory")
        assert await work.run(Caller(), lambda _: 1) == 1

    asyncio.run(scenario())
    assert value(meters, "modelgrid_service_out_of_memory_total") == 1


def test_what_waits_and_has_one_key_is_computed_together(work: Work) -> None:
    batches: list[list[str]] = []

    def compute(_: Turn, items: list[str]) -> list[str]:
        batches.append(items)
        return [item.upper() for item in items]

    async def scenario() -> list[str]:
        roomy = Work(99, Meters(), logging.getLogger("modelgrid.test"))
        batcher = Batcher(roomy, compute, limit=3, key=lambda item: item[0])
        gate = Gate()
        first = asyncio.create_task(roomy.run(Caller(), gate))
        await until(gate.entered.is_set)
        items = ["a1", "b1", "a2", "a3", "a4", "b2"]
        tasks = [asyncio.create_task(batcher.run(Caller(), item)) for item in items]
        await until(lambda: batcher.waiting == len(items))
        gate.opened.set()
        await first
        outcomes = [await task for task in tasks]
        roomy.close()
        return outcomes

    assert asyncio.run(scenario()) == ["A1", "B1", "A2", "A3", "A4", "B2"]
    assert batches == [["a1", "a2", "a3"], ["b1", "b2"], ["a4"]]


def test_a_batch_goes_on_for_those_who_stay_and_ends_when_all_have_left(work: Work) -> None:
    gate = Gate()

    def compute(turn: Turn, items: list[int]) -> list[int]:
        gate(turn)
        return items

    async def scenario() -> None:
        batcher = Batcher(work, compute, limit=2)
        blocker = Gate()
        first = asyncio.create_task(work.run(Caller(), blocker))
        await until(blocker.entered.is_set)
        callers = [Caller(), Caller()]
        tasks = [asyncio.create_task(batcher.run(caller, number)) for number, caller in enumerate(callers)]
        await until(lambda: batcher.waiting == 2)
        blocker.opened.set()
        await first
        await until(gate.entered.is_set)
        callers[0].leave()
        gate.opened.set()
        assert await tasks[1] == 1

    asyncio.run(scenario())


def test_a_batch_computes_nothing_for_who_left_before_it_began(work: Work) -> None:
    batches: list[list[str]] = []

    def compute(_: Turn, items: list[str]) -> list[str]:
        batches.append(items)
        return items

    async def scenario() -> None:
        batcher, blocker, leaver = Batcher(work, compute, limit=4), Gate(), Caller()
        first = asyncio.create_task(work.run(Caller(), blocker))
        await until(blocker.entered.is_set)
        left = asyncio.create_task(batcher.run(leaver, "left"))
        stays = asyncio.create_task(batcher.run(Caller(), "stays"))
        await until(lambda: batcher.waiting == 2)
        leaver.leave()
        blocker.opened.set()
        await first
        assert await stays == "stays"
        with pytest.raises(ServiceError, match="the caller left"):
            await left

    asyncio.run(scenario())
    assert batches == [["stays"]]


def test_one_of_any_size_is_computed_and_sizes_are_added_up(work: Work) -> None:
    async def scenario() -> list[int]:
        batcher = Batcher(work, lambda _, items: [len(items)] * len(items), limit=4, size=lambda item: item)
        return [await batcher.run(Caller(), 9), await batcher.run(Caller(), 4)]

    assert asyncio.run(scenario()) == [1, 1]


def test_what_a_batch_raises_goes_to_all_of_it(work: Work) -> None:
    def compute(_: Turn, items: list[int]) -> list[int]:
        raise ValueError("broken")

    async def scenario() -> None:
        batcher = Batcher(work, compute, limit=4)
        answers = await asyncio.gather(*(batcher.run(Caller(), item) for item in range(2)), return_exceptions=True)
        assert [str(answer) for answer in answers] == ["broken", "broken"]

    asyncio.run(scenario())


def test_pieces_come_before_the_work_is_done(work: Work) -> None:
    gate = threading.Event()

    def produce(_: Turn) -> Iterator[bytes]:
        yield b"first"
        assert gate.wait(DEADLINE_S)
        yield b"second"

    async def scenario() -> list[bytes]:
        pieces = await streamed(work, Connection().request, produce)
        got = [await anext(pieces)]
        gate.set()
        return got + [piece async for piece in pieces]

    assert asyncio.run(scenario()) == [b"first", b"second"]


def test_what_fails_before_the_first_piece_can_be_answered(work: Work) -> None:
    def produce(_: Turn) -> Iterator[bytes]:
        yield from _refused()

    async def scenario() -> None:
        with pytest.raises(ServiceError, match="no such voice"):
            await streamed(work, Connection().request, produce)

    asyncio.run(scenario())


def test_a_reader_that_goes_ends_the_stream_s_work(work: Work) -> None:
    made = []
    gate = threading.Event()

    def produce(_: Turn) -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield b"piece"
            assert gate.wait(DEADLINE_S)

    async def scenario() -> None:
        pieces = await streamed(work, Connection().request, produce)
        await anext(pieces)
        await pieces.aclose()  # as Starlette does it
        gate.set()
        assert await work.run(Caller(), lambda _: "free") == "free"
        assert len(made) < 3

    asyncio.run(scenario())


def test_a_reader_that_goes_before_it_reads_anything_ends_the_stream_s_work(work: Work) -> None:
    made = []
    gate = threading.Event()

    def produce(_: Turn) -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield b"piece"
            assert gate.wait(DEADLINE_S)

    async def scenario() -> None:
        await streamed(work, Connection().request, produce)  # nobody holds what it returns
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.set()
        assert await work.run(Caller(), lambda _: "free") == "free"
        assert len(made) < 3

    asyncio.run(scenario())


def test_a_connection_that_closes_before_the_first_piece_ends_the_work(work: Work) -> None:
    gate = Gate()

    def produce(turn: Turn) -> Iterator[bytes]:
        gate(turn)
        yield b"never"

    async def scenario() -> None:
        connection = Connection()
        stream = asyncio.create_task(streamed(work, connection.request, produce))
        await until(gate.entered.is_set)
        connection.closed.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.opened.set()
        with pytest.raises(ServiceError, match="the caller left"):
            await stream

    asyncio.run(scenario())

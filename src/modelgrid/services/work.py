"""The work of a service: one thread that computes, a bounded queue before it, and an end to what nobody waits for.

A model computes one thing at a time, so there is one thread; what waits for it and is of one kind can be computed
together (`Batcher`). Whoever leaves takes its work along: what hasn't begun is not begun, and what has begun ends at
its next `Turn.step`, unless others in the same turn still wait.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from starlette.requests import Request

from modelgrid.services.accelerator import give_back, is_out_of_memory
from modelgrid.services.errors import LEFT, ServiceError
from modelgrid.services.meters import Meters

I = TypeVar("I")  # noqa: E741  what a request brings
O = TypeVar("O")  # noqa: E741  what it gets
T = TypeVar("T")

IDLE_S = 10.0  # after so long without work, memory that is free goes back to the device and the system


class Left(Exception):
    """Nobody waits for this turn any more."""


class Caller:
    """Somebody who waits for work. `leave` may be called from any thread, and as often as wanted."""

    has_left = False

    def leave(self) -> None:
        self.has_left = True


class Turn:
    """One stay in the thread. What computes says `step` as often as it can stop."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self.callers = callers
        self.done: int | None = None
        self.of: int | None = None

    def step(self, done: int | None = None, of: int | None = None) -> None:
        """`done` of `of` steps are done (None: nobody counts). Raises Left when all callers have left."""
        self.done, self.of = done, of
        if all(caller.has_left for caller in self.callers):
            raise Left

    @property
    def so_far(self) -> str:
        """How far it came, for a log."""
        if self.done is None:
            return "before its end"
        return f"after step {self.done}" + (f" of {self.of}" if self.of is not None else "")


class Work:
    """The thread and what waits for it. `limit` callers may wait; past that they are turned away."""

    def __init__(self, limit: int, meters: Meters, log: logging.Logger) -> None:
        self.meters = meters
        self._limit = limit
        self._log = log
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._here = 0  # callers who wait or are served; touched by the event loop only
        self._served = 0  # those of them whose turn it is; touched by the thread only
        self._idle: asyncio.TimerHandle | None = None
        meters.running.set_function(lambda: self._served)
        meters.waiting.set_function(lambda: max(0, self._here - self._served))

    async def run(self, caller: Caller, work: Callable[[Turn], T]) -> T:
        """`work`, when it is its turn. Raises ServiceError where the queue is full, the caller leaves or memory runs
        out, and whatever `work` raises."""
        async with self.present(caller):
            return await settled(self._thread.submit(self.turn, [caller], work))

    @contextlib.asynccontextmanager
    async def present(self, caller: Caller) -> AsyncIterator[None]:
        """While `caller` waits and is served. Raises ServiceError where the queue is full, or the caller has left."""
        if self._here > self._limit:
            said = f"cannot take the request: {self._limit} others wait already; try again later"
            raise ServiceError(503, said, code="queue_full", retry_s=5)
        self._here += 1
        if self._idle is not None:
            self._idle.cancel()
        try:
            yield
        except asyncio.CancelledError:
            caller.leave()
            raise
        except Left:
            raise ServiceError(LEFT, "the caller left") from None
        finally:
            if caller.has_left:
                self.meters.abandoned.inc()
            self._here -= 1
            if not self._here:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._rest)

    def submit(self, task: Callable[[], None]) -> None:
        """Have the thread do `task`, which must not raise."""
        self._thread.submit(task)

    def turn(self, callers: Sequence[Caller], work: Callable[[Turn], T]) -> T:
        """`work` for all `callers` at once; in the thread."""
        turn = Turn(callers)
        turn.step()
        self._served = len(callers)
        self.meters.batches.observe(len(callers))
        try:
            return work(turn)
        except Left:
            self._log.info("caller left: stopped %s", turn.so_far)
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.meters.out_of_memory.inc()
            self._log.warning("out of memory %s: %s", turn.so_far, str(error).partition("\n")[0])
            said = (
                "cannot compute the request: there is not enough memory for it; ask for less (smaller, shorter, fewer)"
            )
        finally:
            self._served = 0
        # Out of the handler: the exception holds the frames, and they hold what takes the memory.
        give_back()
        raise ServiceError(507, said, code="out_of_memory")

    def close(self) -> None:
        """Take nothing more; what waits is dropped, what runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _rest(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed in the meantime
            self._thread.submit(give_back)


class Batcher(Generic[I, O]):
    """Computes together what waits and has one `key`, oldest first, up to a `limit` of sizes.

    ``work(turn, items)`` returns an outcome for each item, in order. What it raises goes to all of them.
    """

    def __init__(
        self,
        work: Work,
        compute: Callable[[Turn, list[I]], Sequence[O]],
        *,
        limit: int,
        key: Callable[[I], Hashable] = lambda _: None,
        size: Callable[[I], int] = lambda _: 1,
    ) -> None:
        self._work = work
        self._compute = compute
        self._limit = limit
        self._key = key
        self._size = size
        self._lock = threading.Lock()  # the event loop adds, the thread takes
        self._pending: list[_Entry[I, O]] = []

    async def run(self, caller: Caller, item: I) -> O:
        """The outcome of `item`. Raises as `Work.run` does."""
        entry: _Entry[I, O] = _Entry(caller, item)
        async with self._work.present(caller):
            with self._lock:
                self._pending.append(entry)
            self._work.submit(lambda: self._serve(entry))
            return await settled(entry.outcome)

    @property
    def waiting(self) -> int:
        """How many items no turn has taken yet."""
        with self._lock:
            return len(self._pending)

    def _serve(self, first: _Entry[I, O]) -> None:
        """In the thread: compute `first` and what goes with it, unless it went with an earlier one."""
        batch = self._take(first)
        if not batch:
            return
        items = [entry.item for entry in batch]
        try:
            outcomes = self._work.turn([entry.caller for entry in batch], lambda turn: self._compute(turn, items))
            for entry, outcome in zip(batch, outcomes, strict=True):
                entry.outcome.set_result(outcome)
        except Exception as error:
            for entry in batch:
                if not entry.outcome.done():
                    entry.outcome.set_exception(error)

    def _take(self, first: _Entry[I, O]) -> list[_Entry[I, O]]:
        with self._lock:
            if first not in self._pending:
                return []
            if first.caller.has_left:  # those who could go with it have turns of their own
                self._pending.remove(first)
                return [first]
            key, room, batch = self._key(first.item), self._limit, []
            for entry in list(self._pending):
                fits = entry is first or (self._key(entry.item) == key and self._size(entry.item) <= room)
                if fits and (entry is first or not entry.caller.has_left):
                    room -= self._size(entry.item)
                    batch.append(entry)
                    self._pending.remove(entry)
            return batch


class _Entry(Generic[I, O]):
    """What a caller brought, and what becomes of it."""

    __slots__ = ("caller", "item", "outcome")

    def __init__(self, caller: Caller, item: I) -> None:
        self.caller = caller
        self.item = item
        self.outcome: concurrent.futures.Future[O] = concurrent.futures.Future()


async def settled(outcome: concurrent.futures.Future[T]) -> T:
    """What the thread makes of it. Cancelled, it lets the thread go on: only `Turn.step` ends what it does."""
    inner = asyncio.wrap_future(outcome)
    inner.add_done_callback(_heard)
    return await asyncio.shield(inner)


def _heard(task: asyncio.Future[T]) -> None:
    """Take note of how it ended: nobody may be left to."""
    if not task.cancelled():
        task.exception()


@contextlib.asynccontextmanager
async def watched(request: Request) -> AsyncIterator[Caller]:
    """Who sent `request`, whose body has been read: leaves when the connection is closed."""
    caller = Caller()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        caller.leave()

    watching = asyncio.create_task(watch())
    try:
        yield caller
    finally:
        watching.cancel()


async def streamed(
    work: Work, request: Request, produce: Callable[[Turn], Iterator[bytes]]
) -> AsyncGenerator[bytes, None]:
    """The pieces that `produce` makes in the thread, as they come. Returns when the first one is there: what fails
    before it raises here, and can be answered. The thread doesn't wait for a slow reader: what is made is kept."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def make(turn: Turn) -> None:
        for piece in produce(turn):
            loop.call_soon_threadsafe(pieces.put_nowait, piece)
            turn.step(turn.done, turn.of)

    async def run(caller: Caller) -> None:
        try:
            await work.run(caller, make)
        finally:
            pieces.put_nowait(None)

    async with watched(request) as caller:
        running = asyncio.create_task(run(caller))
        running.add_done_callback(_heard)
        try:
            piece = await pieces.get()
        except asyncio.CancelledError:
            caller.leave()
            raise
    if piece is None:
        await running  # raises what it ended with
    rest = _rest_of(pieces, piece, running, caller)
    await anext(rest)  # one that was never begun would not be ended either, where nobody is left to read it
    return rest


async def _rest_of(
    pieces: asyncio.Queue[bytes | None], piece: bytes | None, running: asyncio.Task[None], caller: Caller
) -> AsyncGenerator[bytes, None]:
    try:
        yield b""  # for `streamed`
        while piece is not None:
            yield piece
            piece = await pieces.get()
        await running
    finally:
        if not running.done():
            caller.leave()  # the reader has gone

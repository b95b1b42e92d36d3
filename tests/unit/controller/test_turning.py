"""An engine is told to sleep and to wake until it has, or could not; what it was told before changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import httpx
import pytest

from modelgrid.controller.naps import AGAIN_S, Naps
from modelgrid.controller.probe import FoundAsleep, until_served, watch
from modelgrid.controller.turn import TurnError, put_to_sleep, wake
from modelgrid.controller.turns import Turns
from modelgrid.spec import (
    MAIN,
    Fleet,
    Launch,
    ModelName,
    ModelSpec,
    Need,
    Post,
    Replica,
    ReplicaId,
    Running,
    Share,
    SleepCalls,
    State,
    cpu_machine,
)
from unit.controller.stage import until

CALLS = SleepCalls(
    Post("/sleep?level=2"),
    (Post("/wake_up?tags=weights"), Post("/reload", b'{"method": "x"}'), Post("/wake_up?tags=kv_cache")),
    "/is_sleeping",
    timeout_s=5.0,
)
LAUNCH = Launch(ModelName("a"), "r", "a", key="k", sleep=CALLS)
A = ReplicaId("a-1")


@dataclass
class Sleeper:
    """An engine that sleeps, and whose next answers are told: a status, "lost" when it has done it, or "hangs"."""

    is_sleeping: bool = False
    says: bool | None = None  # instead of the truth
    next: list[str | int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def running(self) -> Running:
        root = f"http://127.0.0.1:{self.port}"
        return Running(f"{root}/v1", root)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.keys.add(headers.get("authorization", ""))
                status = await self._answer(head[0].split(" ")[0], head[0].split(" ")[1], body)
                if status == 0:
                    break
                said = json.dumps({"is_sleeping": self.is_sleeping if self.says is None else self.says}).encode()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(said), said))
                await writer.drain()
        writer.close()

    async def _answer(self, method: str, path: str, body: bytes) -> int:
        if method == "GET":
            return 200
        self.told.append(path)
        self.bodies.append(body)
        fault = self.next.pop(0) if self.next else 200
        if fault == "hangs":
            await asyncio.Event().wait()
        if isinstance(fault, str) or fault < 400:
            if path.startswith("/sleep"):
                self.is_sleeping = True
            if path in ("/wake_up", "/wake_up?tags=kv_cache"):
                self.is_sleeping = False
        return 0 if isinstance(fault, str) else fault


Scene = Callable[[Sleeper, httpx.AsyncClient], Awaitable[None]]


@contextlib.asynccontextmanager
async def _open(engine: Sleeper) -> AsyncIterator[httpx.AsyncClient]:
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    engine.port = server.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client
    server.close()


def _play(engine: Sleeper, scene: Scene) -> None:
    async def whole() -> None:
        async with _open(engine) as client:
            await scene(engine, client)

    asyncio.run(whole())


async def _sleep(engine: Sleeper, client: httpx.AsyncClient) -> None:
    await put_to_sleep(client, engine.running, LAUNCH)


async def _wake(engine: Sleeper, client: httpx.AsyncClient) -> None:
    await wake(client, engine.running, LAUNCH, lambda _: None)


def test_it_is_told_to_sleep_with_its_key() -> None:
    engine = Sleeper()
    _play(engine, _sleep)
    assert engine.is_sleeping
    assert engine.told == ["/sleep?level=2"]
    assert engine.keys == {"Bearer k"}


def test_it_wakes_in_its_steps_and_serves_before_it_counts_as_awake() -> None:
    engine = Sleeper(is_sleeping=True)
    _play(engine, _wake)
    assert engine.told == ["/wake_up?tags=weights", "/reload", "/wake_up?tags=kv_cache"]
    assert engine.bodies[1] == b'{"method": "x"}'


def test_one_that_sleeps_is_told_again_as_it_may_not_be_done() -> None:
    engine = Sleeper(is_sleeping=True)
    _play(engine, _sleep)
    assert engine.told == ["/sleep?level=2"]


def test_one_that_is_awake_is_not_told_to_wake() -> None:
    engine = Sleeper()
    _play(engine, _wake)
    assert engine.told == []


def test_a_lost_answer_is_asked_for_again() -> None:
    engine = Sleeper(next=["lost"])
    _play(engine, _sleep)
    assert engine.told == ["/sleep?level=2"] * 2
    engine = Sleeper(is_sleeping=True, next=[200, "lost"])
    _play(engine, _wake)
    assert engine.told == ["/wake_up?tags=weights", "/reload"] + [post.path for post in CALLS.wake]


def test_a_refusal_is_told_with_its_reason() -> None:
    with pytest.raises(TurnError, match=r"POST /sleep\?level=2 answered 500"):
        _play(Sleeper(next=[500]), _sleep)
    with pytest.raises(TurnError, match="POST /reload answered 501"):
        _play(Sleeper(is_sleeping=True, next=[200, 501]), _wake)


def test_a_refusal_by_one_that_sleeps_is_none() -> None:
    _play(Sleeper(is_sleeping=True, next=[409]), _sleep)


@pytest.mark.parametrize(
    ("engine", "scene"),
    [
        (Sleeper(next=["hangs"]), _sleep),
        (Sleeper(is_sleeping=True, next=["hangs"]), _wake),
        (Sleeper(says=False), _sleep),
        (Sleeper(says=True), _wake),
    ],
    ids=["hangs as it falls asleep", "hangs as it wakes", "says it is awake", "says it sleeps"],
)
def test_what_does_not_turn_in_time_has_failed(engine: Sleeper, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(LAUNCH, sleep=replace(CALLS, timeout_s=0.3))
    monkeypatch.setitem(globals(), "LAUNCH", short)
    with pytest.raises(TurnError, match="after 0s"):
        _play(engine, scene)


def test_an_engine_that_does_not_say_whether_it_sleeps_can_not_be_trusted_to() -> None:
    lost = replace(LAUNCH, sleep=replace(CALLS, is_sleeping="/sleep"))

    async def scene(engine: Sleeper, client: httpx.AsyncClient) -> None:
        engine.says = "perhaps"  # type: ignore[assignment]  # as an engine of another kind
        await put_to_sleep(client, engine.running, lost)

    with pytest.raises(TurnError, match="not whether it sleeps"):
        _play(Sleeper(), scene)


def test_one_that_is_found_asleep_is_not_waited_for() -> None:
    async def scene(engine: Sleeper, client: httpx.AsyncClient) -> None:
        await until_served(client, engine.running, LAUNCH, lambda _: None)

    _play(Sleeper(), scene)
    with pytest.raises(FoundAsleep, match="nobody here has put it to sleep"):
        _play(Sleeper(is_sleeping=True), scene)


def test_one_that_falls_asleep_while_it_is_ready_is_noticed() -> None:
    """A controller that is no more had told it, and the store that knew of it was lost."""

    async def scene(engine: Sleeper, client: httpx.AsyncClient) -> None:
        nudged, told = asyncio.Event(), list[str | None]()
        watching = asyncio.create_task(watch(client, engine.running, LAUNCH, 60.0, nudged, told.append, lambda _: None))
        await until(lambda: told == [None])
        engine.is_sleeping = True
        nudged.set()
        with pytest.raises(FoundAsleep, match="it fell asleep, and nobody here has told it to"):
            await asyncio.wait_for(watching, 10)

    _play(Sleeper(), scene)


def test_turns_are_told_once_each_and_forgotten_when_they_are_over() -> None:
    async def scene(engine: Sleeper, _: httpx.AsyncClient) -> None:
        woken = asyncio.Event()
        turns = Turns(woken.set)
        for _lap in range(3):
            turns.put_to_sleep(A, engine.running, LAUNCH)
        await until(lambda: A in turns.slept)
        assert woken.is_set()
        assert engine.told == ["/sleep?level=2"]
        turns.keep({A: "awake"})
        assert not turns.slept
        engine.next = [500]
        turns.wake(A, engine.running, LAUNCH)
        await until(lambda: A in turns.errors)
        turns.keep({})
        assert not turns.errors
        await turns.close()

    _play(Sleeper(), scene)


# what is learned of it

SPEC = ModelSpec(ModelName("a"), "custom", command=("x", "{port}"), memory_bytes=1000, sleep=1)
NEED = Need(1000)
NOW = 10_000.0


def _nap(naps: Naps, now: float = NOW) -> tuple[float, float] | None:
    found = naps.sleep(SPEC, NEED, None, cpu_machine(10_000), now)
    return None if found is None else (found.share, found.wake_s)


def _replica(state: State = State.ASLEEP, **more: object) -> Replica:
    shares = (Share(MAIN, 1000),)
    made = Replica(A, SPEC.name, SPEC.revision, state, shares, since=NOW - 10, created=NOW - 99, why="")
    return replace(made, **more)  # type: ignore[arg-type]  # by name


def _fleet(replica: Replica, held: int | None = None, now: float = NOW) -> Fleet:
    told = {} if held is None else {A: {MAIN: held}}
    return Fleet(now, (cpu_machine(10_000),), replicas=(replica,), held=told)


def test_an_estimate_holds_until_it_has_slept() -> None:
    naps = Naps()
    estimate = _nap(naps)
    assert estimate == pytest.approx((0.1, 1.0), abs=0.01)
    naps.learn(_fleet(_replica(asleep_shares=(Share(MAIN, 100),)), held=291), [_replica()])
    naps.learn(_fleet(_replica(turning="awake")), [_replica(State.READY, took_s=4.0)])
    assert _nap(naps) == (0.30, 4.0)
    naps.learn(_fleet(_replica(turning="awake")), [_replica(State.READY, took_s=2.0)])
    assert _nap(naps) == (0.30, 3.0)


def test_what_is_held_just_after_it_fell_asleep_teaches_nothing() -> None:
    naps = Naps()
    naps.learn(_fleet(_replica(), held=900), [_replica(since=NOW - 1)])
    assert _nap(naps) == pytest.approx((0.1, 1.0), abs=0.01)


def test_what_it_keeps_is_not_learned_anew_for_a_little_less() -> None:
    naps = Naps()
    for held, share in ((300, 0.3), (285, 0.3), (301, 0.31), (250, 0.25)):
        naps.learn(_fleet(_replica(), held=held), [_replica()])
        assert _nap(naps) == pytest.approx((share, 1.0), abs=0.001), held


@pytest.mark.parametrize("turning", ["asleep", "awake"])
@pytest.mark.parametrize("state", [State.STOPPING, State.FAILED])
def test_one_that_could_not_turn_is_stopped_instead_for_a_while(turning: str, state: State) -> None:
    naps = Naps()
    naps.learn(_fleet(_replica(turning=turning)), [_replica(state)])
    assert _nap(naps, NOW + AGAIN_S - 1) is None
    assert _nap(naps, NOW + AGAIN_S) is not None
    assert _nap(naps, NOW - 1) is not None  # a clock that was put back


def test_one_that_is_stopped_as_it_turns_is_not_blamed_for_it() -> None:
    naps = Naps()
    naps.learn(_fleet(_replica(State.STOPPING, turning="asleep")), [_replica(State.STOPPING, turning="asleep")])
    assert _nap(naps) is not None

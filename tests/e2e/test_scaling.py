"""Replicas come while callers wait longer for a first token than they should, and go without breaking a request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until

OBJECTIVE_S, ATTAIN = 0.5, 0.95
ONE_TAKES = 20.0  # requests a second: one at a time, for a twentieth of a second each
COME = 27.0  # a second
SELDOM = 0.7
RECENT = 100

_log = logging.getLogger(__name__)


def scaled(**scaling: Any) -> dict[str, Any]:
    """Its target is out of reach: only the objective can make it grow."""
    slo = {"ttft": f"{OBJECTIVE_S}s", "attain": ATTAIN}
    engine = ("--at-once", "1", "--delay", str(1 / ONE_TAKES), "--chunk-delay", "0.001")
    return faulty(*engine, scaling={"max": 3, "target": 10_000, "slo": slo, **scaling})


@dataclass
class Callers:
    """Requests that come at random moments, whatever becomes of those before, and what they got."""

    daemon: Daemon
    dice: random.Random
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))  # times to first tokens
    answered: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def attained(self) -> float:
        """Of the last ones."""
        return sum(took_s <= OBJECTIVE_S for took_s in self.recent) / RECENT

    @contextlib.asynccontextmanager
    async def coming(self, rate: float) -> AsyncIterator[None]:
        """So many a second, until the block is left; then all are answered."""
        async with (
            httpx.AsyncClient(base_url=self.daemon.url, timeout=60.0, trust_env=False, limits=_NO_LIMITS) as http,
            asyncio.TaskGroup() as requests,
        ):
            coming = requests.create_task(self._come(rate, http, requests))
            yield
            coming.cancel()

    async def ask(self, http: httpx.AsyncClient, ways: str = "") -> None:
        """One stream."""
        body = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
        began, text, first_s = time.monotonic(), "", None
        try:
            async with http.stream("POST", "/v1/chat/completions", json=body, headers={"x-faulty": ways}) as answer:
                async for piece in answer.aiter_text():
                    first_s = first_s or time.monotonic() - began
                    text += piece
        except httpx.HTTPError as error:
            text += repr(error)
        if first_s is None or not text.endswith("data: [DONE]\n\n"):
            self.broken.append(text[-300:])
            return
        self.answered += 1
        self.recent.append(first_s)

    async def _come(self, rate: float, http: httpx.AsyncClient, requests: asyncio.TaskGroup) -> None:
        due = time.monotonic()
        for _ in itertools.count():
            due += self.dice.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            requests.create_task(self.ask(http))


_NO_LIMITS = httpx.Limits(max_connections=None)


def test_replicas_come_for_the_objective_and_go_without_breaking_a_request(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon({"chat": scaled(min=1, idle="2s")}).start()
    daemon.until_state("chat", "ready")
    callers = Callers(daemon, random.Random(7))
    most = asyncio.run(_rise_and_fall(daemon, callers))
    _log.warning("%d answered, by %d replicas", callers.answered, most)
    assert callers.broken == []
    assert 2 <= most <= 3  # none came again that had just gone
    assert _count(daemon, "gone") == most - 1
    daemon.config["models"]["chat"]["scaling"]["min"] = 0
    daemon.write(daemon.config)
    until("the last one has gone as well", lambda: not daemon.replicas())
    assert daemon.model("chat").state == "cold"
    assert _count(daemon, "start") == most


async def _rise_and_fall(daemon: Daemon, callers: Callers) -> int:
    """How many replicas there were at most. The objective is attained then, and one is left in the end."""
    async with callers.coming(COME):
        await _until("there are more", lambda: len(_ready(daemon)) > 1)
        callers.recent.clear()
        await _until("the objective is attained", lambda: callers.attained >= ATTAIN)
        most = _count(daemon, "start")
        assert _count(daemon, "drain") == 0
        why = daemon.run("why", "chat").stdout
        assert f"later than the model's objective of {OBJECTIVE_S * 1000:.0f}ms allows" in why, why
    async with callers.coming(SELDOM), httpx.AsyncClient(base_url=daemon.url, timeout=60.0, trust_env=False) as http:
        # By themselves they would go once a peak is held for long enough, which may be nine minutes.
        daemon.config["models"]["chat"]["scaling"]["max"] = 1
        long = [callers.ask(http, "chunks=12; chunk-delay=0.5") for _ in range(2 * most)]
        daemon.write(daemon.config)
        await asyncio.gather(*long, _until("one is left", lambda: len(daemon.replicas()) == 1))
    return _count(daemon, "start")


async def _until(what: str, probe: Callable[[], bool]) -> None:
    """`until`, while callers go on."""
    await asyncio.to_thread(until, what, probe, 60.0)


def _ready(daemon: Daemon) -> list[str]:
    return [replica.id for replica in daemon.replicas() if replica.state == "ready"]


def _count(daemon: Daemon, what: str) -> int:
    return sum(event.what == what for event in daemon.events("chat"))

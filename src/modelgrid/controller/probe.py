"""Whether a replica works: its health check, and the first real request that makes it READY."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from modelgrid.controller.reading import Reading, read_load
from modelgrid.spec import Launch, Running

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.25
_HEALTH_TIMEOUT_S = 5.0
_WATCH_EVERY_S = 2.0


class WrongKey(Exception):
    """A replica that does not take our key never will: a store that was lost had another secret."""


class FoundAsleep(Exception):
    """A replica that sleeps, though nobody here put it to sleep: a store that was lost knew of it."""


class NoAnswer(Exception):
    """Something answered, and not what was asked."""


@dataclass(frozen=True, slots=True)
class Served:
    """How long it took from the first look until the check passed, and until the first request was answered."""

    load_s: float
    first_request_s: float


async def until_served(
    client: httpx.AsyncClient, running: Running, launch: Launch, tell: Callable[[str], None]
) -> Served:
    """Wait until the replica has answered its health check and then its first request. Waits for ever.

    A 5xx answer or none is tried again: only the planner's time limit ends that. `tell` gets what is waited for.
    Raises WrongKey and FoundAsleep.
    """
    begun = time.monotonic()
    await _until(lambda: _why_deaf(running.root), begun, tell)
    await _until(lambda: why_unhealthy(client, running, launch), begun, tell)
    healthy = time.monotonic()
    if await _sleeps(client, running, launch):
        raise FoundAsleep("it sleeps, and nobody here has put it to sleep")
    if launch.first_request is not None:
        await _until(lambda: _why_unserved(client, running, launch), healthy, tell)
    return Served(healthy - begun, time.monotonic() - healthy)


async def watch(
    client: httpx.AsyncClient,
    running: Running,
    launch: Launch,
    limit_s: float,
    nudged: asyncio.Event,
    tell: Callable[[str | None], None],
    loaded: Callable[[Reading | None], None],
) -> None:
    """Check the health of a READY replica for ever. `tell` gets the reason once it has failed for `limit_s`, and None
    when it is well; `nudged` asks for a check now. `loaded` gets its load, or None when it can't be had."""
    failing_since: float | None = None
    while True:
        why = await why_unhealthy(client, running, launch)
        now = time.monotonic()
        if why is None:
            if await _sleeps(client, running, launch):
                raise FoundAsleep("it fell asleep, and nobody here has told it to")
            failing_since = None
            tell(None)
            loaded(await _load_of(client, running, launch))
        else:
            loaded(None)
            failing_since = now if failing_since is None else failing_since
            if now - failing_since >= limit_s:
                tell(f"its health check has failed for {now - failing_since:.0f}s (health_timeout): {why}")
        nudged.clear()
        try:
            async with asyncio.timeout(_WATCH_EVERY_S):
                await nudged.wait()
        except TimeoutError:
            pass


async def why_unhealthy(client: httpx.AsyncClient, running: Running, launch: Launch) -> str | None:
    """Why the health check does not pass; None when it does."""
    try:
        answer = await client.get(running.root + launch.health, headers=headers_of(launch), timeout=_HEALTH_TIMEOUT_S)
    except httpx.HTTPError as error:
        return f"GET {launch.health} got no answer: {str(error) or type(error).__name__}"
    return None if answer.is_success else f"GET {launch.health} answered {answer.status_code}"


async def _load_of(client: httpx.AsyncClient, running: Running, launch: Launch) -> Reading | None:
    if launch.load is None:
        return None
    try:
        url = running.root + launch.load.path
        answer = await client.get(url, headers=headers_of(launch), timeout=_HEALTH_TIMEOUT_S)
    except httpx.HTTPError:
        return None
    return read_load(answer.text, launch.load) if answer.is_success else None


async def _why_unserved(client: httpx.AsyncClient, running: Running, launch: Launch) -> str | None:
    """Why the first request is not answered; None when it is."""
    first = launch.first_request
    assert first is not None
    headers = {"content-type": "application/json", **headers_of(launch)}
    try:
        answer = await client.request(
            first.method, running.root + first.path, content=first.body, headers=headers, timeout=first.timeout_s
        )
    except httpx.HTTPError as error:
        return f"{first.method} {first.path} got no answer: {str(error) or type(error).__name__}"
    if answer.status_code in (401, 403):
        raise WrongKey(f"{first.method} {first.path} answered {answer.status_code}: it was started with another key")
    return None if answer.status_code < 500 else f"{first.method} {first.path} answered {answer.status_code}"


async def is_sleeping(client: httpx.AsyncClient, running: Running, launch: Launch, path: str) -> bool:
    """Whether the engine says that it sleeps. Raises NoAnswer, and httpx.HTTPError where there was none at all."""
    answer = await client.get(running.root + path, headers=headers_of(launch), timeout=_HEALTH_TIMEOUT_S)
    try:
        said = json.loads(answer.content)["is_sleeping"] if answer.is_success else None
    except (ValueError, KeyError, TypeError):
        said = None
    if not isinstance(said, bool):
        raise NoAnswer(f"GET {path} answered {answer.status_code}, and not whether it sleeps")
    return said


async def _sleeps(client: httpx.AsyncClient, running: Running, launch: Launch) -> bool:
    if launch.sleep is None:
        return False
    with contextlib.suppress(httpx.HTTPError, NoAnswer):
        return await is_sleeping(client, running, launch, launch.sleep.is_sleeping)
    return False


async def _why_deaf(root: str) -> str | None:
    """A bare connection costs a hundredth of a request: it is all that is asked while nothing listens."""
    address = urlsplit(root)
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(address.hostname, address.port or (443 if address.scheme == "https" else 80)),
            _HEALTH_TIMEOUT_S,
        )
    except (OSError, TimeoutError):
        return f"nothing listens at {address.netloc}"
    writer.close()
    return None


async def _until(
    why_not: Callable[[], Coroutine[None, None, str | None]], begun: float, tell: Callable[[str], None]
) -> None:
    while (why := await why_not()) is not None:
        tell(why)
        waited = time.monotonic() - begun
        await asyncio.sleep(min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, waited / 100)))


def headers_of(launch: Launch) -> dict[str, str]:
    """What every request to a replica carries."""
    return {"authorization": f"Bearer {launch.key}"} if launch.key else {}

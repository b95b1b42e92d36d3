"""How an engine is put to sleep, and woken: the requests that do it, again where an answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import httpx

from modelgrid.controller.probe import NoAnswer, headers_of, is_sleeping, until_served
from modelgrid.spec import Launch, Post, Running, SleepCalls

_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class TurnError(Exception):
    """It could not be put to sleep, or woken; the text says why."""


async def put_to_sleep(client: httpx.AsyncClient, running: Running, launch: Launch) -> None:
    """Return when the engine has answered that it sleeps. Raises TurnError, in `SleepCalls.timeout_s` at the latest.

    It is always told, never only asked: one that was told before may say that it sleeps while it still gives memory
    back, and telling it again waits for that.
    """
    calls = _calls(launch)
    last = "it was not told yet"

    async def turn() -> None:
        nonlocal last
        pause_s = _PAUSE_S
        while True:
            refused = None
            try:
                refused = await _post(client, running, launch, calls.sleep)
                last = refused or f"it was told, and GET {calls.is_sleeping} says that it is awake"
                if await is_sleeping(client, running, launch, calls.is_sleeping):
                    return
            except httpx.HTTPError as error:
                last = f"POST {calls.sleep.path} got no answer: {_told(error)}"
            if refused is not None:
                raise TurnError(refused)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    await _in_time(turn, calls, lambda: f"it is not asleep after {calls.timeout_s:.0f}s: {last}")


async def wake(client: httpx.AsyncClient, running: Running, launch: Launch, tell: Callable[[str], None]) -> None:
    """Return when the engine is awake and has answered its health check and its first request. Raises TurnError, and
    WrongKey. `tell` gets what is waited for; the planner limits how long that may take."""
    calls = _calls(launch)
    last = "it was not told yet"

    async def turn() -> None:
        nonlocal last
        pause_s = _PAUSE_S
        while True:
            try:
                for call in calls.wake if await is_sleeping(client, running, launch, calls.is_sleeping) else ():
                    if (refused := await _post(client, running, launch, call)) is not None:
                        raise TurnError(refused)
                if not await is_sleeping(client, running, launch, calls.is_sleeping):
                    return
                last = f"it was told, and GET {calls.is_sleeping} says that it sleeps"
            except httpx.HTTPError as error:
                last = f"it gave no answer: {_told(error)}"
            tell(last)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    await _in_time(turn, calls, lambda: f"it is not awake after {calls.timeout_s:.0f}s: {last}")
    await until_served(client, running, launch, tell)


async def _in_time(turn: Callable[[], Coroutine[None, None, None]], calls: SleepCalls, why: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(calls.timeout_s):
            await turn()
    except TimeoutError:
        raise TurnError(why()) from None
    except NoAnswer as error:
        raise TurnError(str(error)) from None


async def _post(client: httpx.AsyncClient, running: Running, launch: Launch, call: Post) -> str | None:
    """Why it was refused; None where it was done. Raises httpx.HTTPError where nobody knows."""
    headers = headers_of(launch) | ({"content-type": "application/json"} if call.body else {})
    answer = await client.post(running.root + call.path, content=call.body, headers=headers, timeout=None)
    if answer.is_success:
        return None
    return f"POST {call.path} answered {answer.status_code}: {answer.text[:200].strip() or 'nothing'}"


def _calls(launch: Launch) -> SleepCalls:
    if launch.sleep is None:
        raise TurnError("it was started as one that can't sleep")
    return launch.sleep


def _told(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__

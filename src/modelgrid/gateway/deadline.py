"""A timer that is moved often and fires seldom: moving it costs an assignment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `expire` once the time last given to `move` has passed without another `move` or a `stop`.

    The timer that the loop holds is only replaced when it would ring too late. One that rings early looks at the
    time and is set again, so a request that begins and ends in time touches no timer.
    """

    __slots__ = ("_at", "_expire", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def move(self, delay_s: float) -> None:
        """Expire `delay_s` from now, whatever was set before."""
        self._at = at = self._loop.time() + delay_s
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._ring)
        elif self._timer.when() > at:
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._ring)

    def stop(self) -> None:
        """Don't expire."""
        self._at = math.inf

    def close(self) -> None:
        """Don't expire, and let go of the loop."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._at == math.inf:
            return
        if self._loop.time() >= self._at:
            self._at = math.inf
            self._expire()
        else:
            self._timer = self._loop.call_at(self._at, self._ring)

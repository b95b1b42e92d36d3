"""Replicas that no controller looks after any more, and their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from modelgrid.runtimes.runtime import Runtime
from modelgrid.spec import Exited, ReplicaId, Seen, Unknown
from modelgrid.spec.units import format_seconds

FORCED_S = 10.0  # what is left so long after it was first made to end will not go
_POLL_S = 0.1


class StopError(Exception):
    """Something is still there; the text says what."""


async def end_replicas(
    runtimes: Mapping[str, Runtime], grace_s: float, tell: Callable[[str], None], *, forced_s: float = FORCED_S
) -> int:
    """Ask all at once, wait for the grace time, then force, again and again until none is left or time is up. Answers
    how many there were. Raises StopError."""
    found = await _list(runtimes)
    if found:
        tell(f"ending {len(found)} replicas that were left: {', '.join(seen.replica for _, seen in found)}")
    ended = len(found)
    force_at = time.monotonic() + grace_s
    asked: set[ReplicaId] = set()
    while found:
        force = time.monotonic() >= force_at
        if time.monotonic() >= force_at + forced_s:
            names = ", ".join(seen.replica for _, seen in found)
            raise StopError(f"cannot end {names}: still there {format_seconds(forced_s)} after being killed")
        for runtime, seen in found:
            if force or seen.replica not in asked or isinstance(seen.state, Exited):
                await runtime.stop(seen.replica, force=force)
                asked.add(seen.replica)
        await asyncio.sleep(_POLL_S)
        found = await _list(runtimes)
    return ended


async def _list(runtimes: Mapping[str, Runtime]) -> list[tuple[Runtime, Seen]]:
    found: list[tuple[Runtime, Seen]] = []
    for runtime in runtimes.values():
        seen = await runtime.list()
        if isinstance(seen, Unknown):
            raise StopError(f"cannot see what runs: {seen.why}")
        found += [(runtime, one) for one in seen]
    return found

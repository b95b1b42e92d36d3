"""Connections that were used once and then rest: ``python -m bench.gateway.idle PORT COUNT``."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from bench.gateway import bodies

_AT_ONCE = 16
READY = "all rest"


async def _run(port: int, count: int) -> None:
    request = bodies.request(bodies.chat(300))
    gate = asyncio.Semaphore(_AT_ONCE)
    kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await reader.readuntil(b"total_tokens")
            kept.append((reader, writer))

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_run(int(sys.argv[1]), int(sys.argv[2])))

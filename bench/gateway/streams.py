"""A caller of streams: ``python -m bench.gateway.streams PORT STREAMS …`` prints a line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import cast

import uvloop
from bench.gateway import bodies
from bench.gateway.percentiles import percentile

READY = "all run"
_EVENT = b'"chat.completion.chunk"'
_DONE = b"data: [DONE]"


class Caller(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes, ended: asyncio.Future[None]) -> None:
        self._request = request
        self._ended = ended
        self._rest = b""
        self._began = 0.0
        self.first_s: float | None = None
        self.events = 0
        self.is_whole = False
        self.why = ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        seen = self._rest + data
        self._rest = seen[-(len(_EVENT) - 1) :]
        self.events += seen.count(_EVENT)
        if self.first_s is None:
            if not seen.startswith(b"HTTP/1.1 200"):
                self.why = seen[:200].decode(errors="replace")
            if self.events:
                self.first_s = time.perf_counter() - self._began
        if _DONE in seen:
            self.is_whole = True
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        if not self._ended.done():
            self._ended.set_result(None)


async def _run(options: argparse.Namespace) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    request = bodies.request(bodies.chat(300, stream=True))
    callers, ends = [], []
    began = loop.time()
    for number in range(options.streams):
        await asyncio.sleep(max(0.0, began + number * options.apart_ms / 1000 - loop.time()))
        ended: asyncio.Future[None] = loop.create_future()
        caller = Caller(request, ended)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", options.port)  # type: ignore[misc]
        callers.append(caller)
        ends.append(ended)
    if options.hold:
        while any(caller.first_s is None and not caller.why for caller in callers):
            await asyncio.sleep(0.05)
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
    await asyncio.wait_for(asyncio.gather(*ends), options.limit_s)
    firsts = sorted(caller.first_s for caller in callers if caller.first_s is not None)
    failed = [caller for caller in callers if not caller.is_whole]
    return {
        "streams": len(callers),
        "failed": len(failed),
        "why": next((caller.why for caller in failed if caller.why), ""),
        "events": sum(caller.events for caller in callers),
        "seconds": loop.time() - began,
        "first_p50_ms": percentile(firsts, 50) * 1000 if firsts else None,
        "first_p99_ms": percentile(firsts, 99) * 1000 if firsts else None,
    }


def main() -> None:
    """Call, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("streams", type=int)
    parser.add_argument("--apart-ms", type=float, default=2.0, help="between the beginnings of two streams")
    parser.add_argument("--limit-s", type=float, default=60.0)
    parser.add_argument("--hold", action="store_true", help="say when all run")
    sys.stdout.write(json.dumps(uvloop.run(_run(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()

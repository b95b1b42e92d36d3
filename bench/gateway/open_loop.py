"""An open loop: ``python -m bench.gateway.open_loop PORT RATE SECONDS`` prints a line of JSON.

Requests have their times whatever the answers do, and a latency counts from the time that its request had: a proxy
that stalls is charged for all who had to wait, where a closed loop would just have asked less often.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import struct
import sys
import time
from collections import deque
from typing import cast

import uvloop
from bench.gateway import bodies
from bench.gateway.percentiles import percentile

_CONNECTIONS = 64
_WARM_UP_S = 0.5
_END_S = 10.0  # for answers that are late
_CLOCK_MONOTONIC = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """Ticks at a rate that the loop's own timers, of whole milliseconds, can't keep."""

    def __init__(self, rate: float) -> None:
        self.descriptor = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK)
        interval_ns = int(1e9 / rate)
        spec = struct.pack("4q", *divmod(interval_ns, 10**9), *divmod(interval_ns, 10**9))
        if self.descriptor < 0 or _libc.timerfd_settime(self.descriptor, 0, spec, None):
            raise OSError(ctypes.get_errno(), "no timer")

    def ticks(self) -> int:
        """Since the last time."""
        return int.from_bytes(os.read(self.descriptor, 8), sys.byteorder)


class Caller(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._due = 0.0
        self._left = 0
        self._is_in_body = False

    def send(self, due: float) -> None:
        self._due = due
        self._is_in_body = False
        assert self._transport is not None
        self._transport.write(self._loop.request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answers end with the upstream's last words, whichever way they are framed."""
        if not self._is_in_body and not data.startswith(b"HTTP/1.1 200"):
            self._loop.failed += 1
        self._is_in_body = True
        if data.endswith((b"}", b"}\r\n0\r\n\r\n", b"\r\n0\r\n\r\n")) or data == b"0\r\n\r\n":
            self._loop.answered(self, self._due)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._loop.lost += 1
        self._transport = None


class Loop:
    """All callers, and who waits for one of them."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.latencies: list[float] = []
        self.failed = 0
        self.lost = 0
        self._free: deque[Caller] = deque()
        self._waiting: deque[float] = deque()
        self.in_flight = 0

    async def connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_CONNECTIONS):
            _, caller = await loop.create_connection(lambda: Caller(self), "127.0.0.1", port)
            self._free.append(caller)

    def ask(self, due: float) -> None:
        self.in_flight += 1
        if self._free:
            self._free.pop().send(due)
        else:
            self._waiting.append(due)

    def answered(self, caller: Caller, due: float) -> None:
        self.latencies.append(time.perf_counter() - due)
        self.in_flight -= 1
        if self._waiting:
            caller.send(self._waiting.popleft())
        else:
            self._free.append(caller)


async def _run(port: int, rate: float, seconds: float) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    callers = Loop(bodies.request(bodies.chat(300)))
    await callers.connect(port)
    total = int(rate * (seconds + _WARM_UP_S))
    warm = int(rate * _WARM_UP_S)
    ended = asyncio.Event()
    sent = 0
    began = time.perf_counter()
    timer = Timer(rate)

    def tick() -> None:
        nonlocal sent
        for _ in range(min(timer.ticks(), total - sent)):
            sent += 1
            callers.ask(began + sent / rate)
        if sent == total:
            loop.remove_reader(timer.descriptor)
            ended.set()

    loop.add_reader(timer.descriptor, tick)
    await ended.wait()
    deadline = time.perf_counter() + _END_S
    while callers.in_flight and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    latencies = sorted(callers.latencies[warm:])
    return {
        "requests": len(callers.latencies),
        "failed": callers.failed + callers.lost + callers.in_flight,
        **({name: percentile(latencies, p) * 1000 for name, p in _PERCENTILES.items()} if latencies else {}),
    }


_PERCENTILES = {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9}

if __name__ == "__main__":
    said = uvloop.run(_run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.write(json.dumps(said) + "\n")

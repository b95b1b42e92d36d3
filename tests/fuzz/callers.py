"""Hostile bytes into a caller's connection, without sockets, and what must be true of it whatever they are.

    make fuzz RUNS=1000000 SEED=1

Each input is a few requests, most of them damaged, in pieces of any size. No exception may escape; what is written is
well-formed answers, one a request in its order, and at most one refusal behind them; the requests that are served are
the first of those that a plain second reading finds, each with that body; nothing is held once the caller is gone, and
little before. Heads are remembered from input to input, so what is remembered is under test, too.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, cast

from fuzz.mutate import caller_bytes, pieces
from fuzz.reading import Read, read_answers, read_requests
from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.connection import ClientConnection
from modelgrid.gateway.cors import Cors
from modelgrid.gateway.departures import Departures
from modelgrid.gateway.endpoints import Found, find_endpoint
from modelgrid.gateway.heads import Heads
from modelgrid.gateway.options import PIPELINED_BYTES, GatewayOptions
from modelgrid.gateway.request import Head, Request
from modelgrid.gateway.request_log import RequestLog
from modelgrid.gateway.upload import Upload

_OK = answers.ok(b"{}")
_OTHERWISE = find_endpoint("GET", "/health")


class Finding(AssertionError):
    """Something that must not be."""


class Timer:
    """One that never rings."""

    def when(self) -> float:
        return 0.0

    def cancel(self) -> None: ...


class Clock:
    """An event loop in which no time passes."""

    _timer = Timer()

    def time(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> Timer:
        return self._timer

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        return self._timer


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.written.append(data)

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0


class Job:
    """A request whose answer comes later; a form is taken in meanwhile."""

    is_begun = False
    sign = b""

    def __init__(self, service: Service, connection: ClientConnection, request: Request) -> None:
        self._service = service
        self._connection = connection
        self._upload = request.upload
        self.taken: list[bytes] = []
        self.is_over = False
        if self._upload is None:
            service.waiting.append(self)
        else:
            self._upload.attend(self)

    def finish(self, answer: Answer = _OK) -> None:
        """Answer now."""
        if not self.is_over:
            self.is_over = True
            self._connection.answer(answer)

    def leave(self) -> None:
        self.is_over = True

    stop = pause = resume = leave

    # An upload's attendant and sink.

    def on_model(self, named: str) -> None:
        assert self._upload is not None
        model = self._upload._model
        if model is not None and model.value == b"m":
            self._upload.flow(self, named)
        else:  # there is no such model
            self.finish()

    def on_refused(self, answer: Answer) -> None:
        self.taken.clear()
        self.finish(answer)

    def write(self, data: bytes) -> bool:
        self.taken.append(data)
        return True

    def sent(self) -> None:
        self._service.waiting.append(self)


class Service:
    """Answers everything, at once or a little later, and keeps account of it."""

    is_draining = False
    cors: Cors | None = None
    log: RequestLog | None = None
    own_lines = b""
    is_tls = False

    def __init__(self, options: GatewayOptions, heads: int) -> None:
        self.options = options
        self.loop = cast(asyncio.AbstractEventLoop, Clock())
        self.heads: Heads[Head] = Heads(heads, options.header_bytes)
        self.departures = Departures(self.loop)
        self.access: object = object()
        self.is_slow = False
        self.connections = 0
        self.held = 0
        self.waiting: list[Job] = []
        self.served: list[tuple[Request, Job | None]] = []

    def opened(self, connection: ClientConnection) -> bool:
        self.connections += 1
        return True

    def closed(self, connection: ClientConnection) -> None:
        self.connections -= 1

    def hold(self, count: int) -> bool:
        self.held += count
        return True

    def request_id(self) -> bytes:
        return b"id"

    def check(self, head: Head) -> Found | Answer:
        head.access = self.access
        found = find_endpoint(head.method, head.path)
        if isinstance(found, Found):
            return found
        assert isinstance(_OTHERWISE, Found)
        return _OTHERWISE  # so that whatever is read is served

    def serve(self, connection: ClientConnection, request: Request) -> Job | None:
        if not self.is_slow and request.upload is None:
            self.served.append((request, None))
            connection.answer(_OK)
            return None
        job = Job(self, connection, request)
        self.served.append((request, job))
        return None if job.is_over else job


def options(**more: Any) -> GatewayOptions:
    """As workers have them, but for what would never be reached."""
    nowhere = Path("nowhere")
    return GatewayOptions(worker="fuzz", link_socket=nowhere, table_file=nowhere, body_bytes=1 << 16, **more)


def run(service: Service, parts: list[bytes], *, is_slow: bool) -> tuple[bytes, list[tuple[Request, Job | None]]]:
    """What is written and served where `parts` arrive one after the other, and the caller leaves then."""
    service.is_slow = is_slow
    service.served = []
    service.waiting = []
    wire = Wire()
    connection = ClientConnection(service)
    connection.connection_made(cast(asyncio.Transport, wire))
    for part in parts:
        connection.data_received(part)
        if len(connection._held) > PIPELINED_BYTES or service.held > 1 << 17:
            raise Finding("too much is held")
        if service.waiting and len(part) % 3:
            service.waiting.pop(0).finish()
        if wire.is_closed:
            break
    while service.waiting and not wire.is_closed:
        service.waiting.pop(0).finish()
    connection.connection_lost(None)
    if service.held or service.connections or connection._held or connection._ready:
        raise Finding("something is held when the caller is gone")
    return b"".join(wire.written), service.served


def check(service: Service, plain: Service, dice: Random) -> None:
    """One input."""
    data, is_right = caller_bytes(dice)
    parts = pieces(dice, data)
    is_slow = dice.random() < 0.3
    try:
        written, served = run(service, parts, is_slow=is_slow)
        expected = read_requests(data)
        _compare(served, expected)
        methods = [request.head.method for request, _ in served]
        statuses = read_answers(written, methods)
        if is_right and (len(served) != len(expected) or statuses != [200] * len(expected)):
            raise Finding(f"not all that is right is served: {statuses}")
        if dice.random() < 0.2 and run(plain, parts, is_slow=is_slow)[0] != written:
            raise Finding("the answers differ where heads aren't remembered")
    except Exception as error:
        lengths = [len(part) for part in parts]
        raise Finding(
            f"{type(error).__name__}: {error}\ndata = {data!r}\nlengths = {lengths}\nis_slow = {is_slow}"
        ) from error


def _compare(served: list[tuple[Request, Job | None]], expected: list[Read]) -> None:
    for number, (request, job) in enumerate(served):
        head = request.head
        is_whole = request.upload is None or request.upload.is_ended
        if number >= len(expected):
            if is_whole:
                raise Finding(f"{head.method} {head.path} is served, and is not there")
            return
        one = expected[number]
        if (head.method, head.path.encode("latin-1")) != (one.method, _path(one.target)):
            raise Finding(f"{head.method} {head.path} is served instead of {one.method} {one.target!r}")
        body = request.body if job is None or request.upload is None else _taken(request.upload, job, one.body)
        if body != one.body:
            raise Finding(f"{head.method} {head.path} is served with {body!r} instead of {one.body!r}")


def _taken(upload: Upload, job: Job, otherwise: bytes) -> bytes:
    """What a job got of a form; of one that was refused nothing has to be known."""
    if not upload.is_ended or not job.taken:
        return otherwise
    if upload._length is not None:
        return b"".join(job.taken)
    return b"".join(part.partition(b"\r\n")[2][:-2] for part in job.taken)


def _path(target: bytes) -> bytes:
    _, scheme, rest = target.partition(b"://")
    if scheme and not target.startswith((b"/", b"*")):
        end = min((at for at in (rest.find(mark) for mark in b"/?#") if at >= 0), default=len(rest))
        target = rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
    return target.partition(b"?")[0]


def fuzz(runs: int, seed: int, say: Callable[[str], object] = lambda line: None) -> float:
    """Check this many inputs; how many kilobytes the process has grown since the first tenth."""
    dice = Random(seed)
    chosen = options()
    service, plain = Service(chosen, 1024), Service(chosen, 0)
    start = perf_counter()
    first = 0.0
    for number in range(runs):
        check(service, plain, dice)
        if number == runs // 10:
            first = _resident_kb()
        if number % 100_000 == 99_999:
            rate = (number + 1) / (perf_counter() - start)
            say(f"{number + 1:>9,} inputs, {rate:,.0f}/s, {_resident_kb() / 1024:.1f} MB resident")
    return _resident_kb() - first


def _resident_kb() -> float:
    fields = Path("/proc/self/statm").read_text().split() if Path("/proc/self/statm").exists() else None
    if fields is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(fields[1]) * resource.getpagesize() / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="hostile bytes into the gateway")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    start = perf_counter()
    sys.stdout.write(f"{_resident_kb() / 1024:.1f} MB resident before the first\n")
    try:
        grown = fuzz(chosen.runs, chosen.seed, lambda line: sys.stdout.write(f"{line}\n"))
    except Finding as finding:
        sys.exit(f"found: {finding}")
    sys.stdout.write(
        f"{chosen.runs:,} inputs in {perf_counter() - start:.0f} s, nothing found; grown by {grown:,.0f} kB\n"
    )


if __name__ == "__main__":
    main()

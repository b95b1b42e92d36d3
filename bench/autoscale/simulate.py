"""One model, its replicas and a policy that says how many there should be; a discrete-event simulation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from bench.autoscale.replica import Figures, Server
from bench.autoscale.trace import Request, Trace

TICK_S = 1.0  # what gateways tell, and a lap of the controller


@dataclass(slots=True)
class Seen:
    """What a policy is told at a tick: nothing that a gateway doesn't know."""

    now: float
    servers: Sequence[Server]  # those that aren't draining, oldest first
    waiting: int  # requests that no replica has
    oldest_s: float
    arrived: int = 0
    ttft: list[float] = field(default_factory=list)  # of first tokens since the last tick
    input_tokens: int = 0  # of requests that have ended since the last tick
    output_tokens: int = 0
    finished: int = 0


class Policy(Protocol):
    """How many replicas there should be."""

    def want(self, seen: Seen, /) -> int:
        """Their number, with those that start."""

    def leaves(self, seen: Seen, surplus: int, /) -> Sequence[Server]:
        """Who goes when there are `surplus` too many; fewer may go."""


@dataclass(frozen=True, slots=True)
class Result:
    """A run: what it cost, and how long first tokens took."""

    gpu_hours: float
    ttft: Sequence[float]  # seconds, sorted
    starts: int
    most: int

    def attained(self, ttft_s: float) -> float:
        """The share of requests with their first token in time."""
        return bisect_right(self.ttft, ttft_s) / len(self.ttft)

    def percentile_s(self, share: float) -> float:
        """How long the first token took at most, for `share` of the requests."""
        return self.ttft[min(len(self.ttft) - 1, int(len(self.ttft) * share))]


@dataclass(slots=True)
class _World:
    figures: Figures
    load_s: float
    servers: list[Server]
    waiting: list[Request] = field(default_factory=list)
    events: list[tuple[float, int, int, Server]] = field(default_factory=list)
    ids: int = 0
    starts: int = 0
    hours: list[tuple[float, float]] = field(default_factory=list)  # of those that are gone: from, to


def simulate(
    trace: Trace, policy: Policy, *, load_s: float, first: int, warm_s: float, figures: Figures | None = None
) -> Result:
    """Run `trace`. It begins with `first` ready replicas; what happens before `warm_s` counts for nothing."""
    figures = figures or Figures()
    world = _World(figures, load_s, [])
    for _ in range(first):
        _start(world, 0.0, 0.0)
    ttft: dict[int, float] = {}
    seen = _nothing(0.0)
    most = first
    tick = TICK_S
    arrivals = iter([*trace.requests, None])
    request = next(arrivals)
    end = trace.duration_s
    while True:
        event_at = world.events[0][0] if world.events else float("inf")
        arrival_at = request.at if request is not None else float("inf")
        if tick <= event_at and tick <= arrival_at:
            if tick > end and len(ttft) == len(trace.requests):
                break
            seen = _tick(world, policy, seen, tick, tick <= end)
            most = max(most, len(world.servers))
            tick += TICK_S
        elif request is not None and arrival_at <= event_at:
            seen.arrived += 1
            _send(world, request, arrival_at)
            request = next(arrivals)
        else:
            at, _, version, server = heappop(world.events)
            if version == server.version:
                _happen(world, server, at, seen, ttft)
    spans = [*world.hours, *((server.created, end) for server in world.servers)]
    used_s = sum(max(0.0, min(to, end) - max(since, warm_s)) for since, to in spans)
    counted = sorted(ttft[r.number] for r in trace.requests if r.at >= warm_s)
    return Result(used_s / 3600, counted, world.starts - first, most)


def _tick(world: _World, policy: Policy, seen: Seen, now: float, is_counted: bool) -> Seen:
    seen.now = now
    seen.servers = [server for server in world.servers if not server.is_draining]
    seen.waiting = len(world.waiting)
    seen.oldest_s = now - world.waiting[0].at if world.waiting else 0.0
    missing = policy.want(seen) - len(seen.servers)
    if is_counted:
        for _ in range(missing):
            _start(world, now, now + world.load_s)
        if missing < 0:
            for server in policy.leaves(seen, -missing):
                server.is_draining = True
                if server.in_flight == 0:
                    _gone(world, server, now)
    return _nothing(now)


def _nothing(now: float) -> Seen:
    return Seen(now, (), 0, 0.0)


def _start(world: _World, now: float, ready_at: float) -> None:
    world.ids += 1
    world.starts += 1
    server = Server(world.ids, world.figures, now, ready_at, at=ready_at)
    world.servers.append(server)
    if ready_at > now:
        _plan(world, server, ready_at)


def _plan(world: _World, server: Server, at: float) -> None:
    server.version += 1
    heappush(world.events, (at, server.id, server.version, server))


def _send(world: _World, request: Request, now: float) -> None:
    """To the ready replica with the fewest in flight, as the gateway does."""
    ready = [server for server in world.servers if server.ready_at <= now and not server.is_draining]
    if not ready:
        world.waiting.append(request)
        return
    server = min(ready, key=lambda server: server.in_flight)
    server.advance(now)
    server.take(request, now)
    _plan(world, server, server.next_s())


def _happen(world: _World, server: Server, now: float, seen: Seen, ttft: dict[int, float]) -> None:
    if now == server.ready_at:
        waiting, world.waiting = world.waiting, []
        for request in waiting:
            _send(world, request, now)
        return
    first, ended = server.advance(now)
    if first is not None:
        took_s = ttft[first.number] = now - first.at
        seen.ttft.append(took_s)
    for request in ended:
        seen.finished += 1
        seen.input_tokens += request.input_tokens
        seen.output_tokens += request.output_tokens
    if server.is_draining and server.in_flight == 0:
        _gone(world, server, now)
    else:
        _plan(world, server, server.next_s())


def _gone(world: _World, server: Server, now: float) -> None:
    world.servers.remove(server)
    world.hours.append((server.created, now))
    server.version += 1

"""One run: what is measured when, of whom."""

from __future__ import annotations

import datetime
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway import bodies, machine, proc
from bench.gateway.load import Callers, set_pace
from bench.gateway.machine import Split
from bench.gateway.peers import DIRECT, Peer, Served, served
from bench.gateway.percentiles import median
from bench.gateway.processes import Failed, ask
from bench.gateway.upstream import Upstream, fixed_upstream, stream_upstream

STREAMS = 200
CHUNKS = 100
INTERVAL_MS = 20
HELD = 1000
FIRST_APART_MS = 50.0
_BODIES = {"cpu-300": 300, "cpu-heads": 300, "cpu-8k": 8 << 10, "cpu-1m": 1 << 20}  # long ones last: they linger
_MB = 1e6
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for."""

    figures: tuple[str, ...]
    rounds: int
    seconds: float
    split: Split
    rate: int | None = None  # of the open loop; None: half of the slowest router's most
    limit_s: float = 1320.0  # what has not begun by then is left out


@dataclass
class Results:
    """What came of it."""

    peers: list[str]
    figures: list[str]
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by figure and peer, one for each round
    failures: dict[str, str] = field(default_factory=dict)  # by peer
    notes: dict[str, str] = field(default_factory=dict)  # by peer
    record: dict[str, object] = field(default_factory=dict)

    def add(self, figure: str, peer: str, value: float) -> None:
        self.values.setdefault(figure, {}).setdefault(peer, []).append(value)

    def median(self, figure: str, peer: str) -> float | None:
        """The middle of the rounds."""
        return median(self.values.get(figure, {}).get(peer, []))


def run(plan: Plan, peers: Sequence[Peer]) -> Results:
    """Build and measure all; who fails is told in the results, and the others go on."""
    results = Results([peer.name for peer in peers], list(plan.figures))
    with tempfile.TemporaryDirectory(prefix="modelgrid-bench-") as folder:
        bench = _Bench(plan, results, Path(folder))
        bench.build(peers)
        bench.measure()
    results.record = bench.record()
    return results


class _Bench:
    def __init__(self, plan: Plan, results: Results, folder: Path) -> None:
        self._plan = plan
        self._results = results
        self._folder = folder
        self._peers: list[Peer] = []
        self._began = time.monotonic()
        self._date = datetime.datetime.now(datetime.UTC)
        self._about: dict[str, dict[str, object]] = {}
        self._rate: float | None = None

    def build(self, peers: Sequence[Peer]) -> None:
        for peer in peers:
            with self._excused(peer):
                self._say(f"building {peer.name}")
                peer.build()
                self._about[peer.name] = {"version": peer.version(), "configuration": peer.configuration()}
                self._peers.append(peer)

    def measure(self) -> None:
        """Rounds go through all peers, so that whatever else the machine does meets all alike."""
        closed = self._wants("cpu-300", "cpu-heads", "cpu-8k", "cpu-1m", "rps-1")
        paced = self._wants("added-p50", "added-p99", "added-p999", "cpu-rate")
        if closed or (paced and not self._plan.rate):
            self._rounds("requests", fixed_upstream, 1, self._closed)
        if paced:
            self._rate = self._plan.rate or self._half_of_the_slowest_router()
            self._rounds(f"at {self._rate:.0f}/s", fixed_upstream, 1, self._paced)
        if self._wants("first-p50", "first-p99"):
            self._rounds("first tokens", stream_upstream, 1, self._first)
        if self._wants("cpu-chunk"):
            self._rounds("chunks", stream_upstream, 1, self._chunks)
        if self._wants("rss-rest", "pss-rest", "rss-idle", "pss-idle"):
            self._rounds("idle connections", stream_upstream, 1, self._resting, times=1)
        if self._wants("rss-streams", "pss-streams", "stream-memory"):
            self._rounds("active streams", stream_upstream, 1, self._streaming, times=1)
        if self._wants("rps-2"):
            self._rounds("2 workers", fixed_upstream, 2, self._throughput)

    def record(self) -> dict[str, object]:
        """All that one needs to know of this run."""
        plan = self._plan
        return {
            "date": self._date.isoformat(timespec="seconds"),
            "took_s": round(time.monotonic() - self._began),
            "machine": machine.described(),
            "cores": {"callers": sorted(plan.split.callers(1)), "measured": sorted(plan.split.proxies(1))},
            "plan": {"rounds": plan.rounds, "seconds": plan.seconds, "open_loop_rate": self._rate},
            "peers": self._about,
            "columns": self._results.peers,
            "rows": self._results.figures,
            "notes": self._results.notes,
            "failures": self._results.failures,
            "values": self._results.values,
        }

    def _rounds(
        self,
        what: str,
        upstream: Callable[[Path, frozenset[int]], AbstractContextManager[Upstream]],
        workers: int,
        measure: Callable[[Peer, Served, Callers, Upstream], None],
        times: int | None = None,
    ) -> None:
        cores = self._plan.split.callers(workers)
        callers = Callers(self._folder, cores)
        rounds = times or self._plan.rounds
        for number in range(1, rounds + 1):
            for peer in list(self._peers):
                if time.monotonic() - self._began > self._plan.limit_s:
                    self._note(peer, f"{what}: {number - 1} of {rounds} rounds, for want of time")
                    continue
                self._say(f"{what}: round {number} of {rounds}, {peer.name}")
                with self._excused(peer), ExitStack() as stack:
                    to = stack.enter_context(upstream(self._folder, cores))
                    own = self._plan.split.proxies(workers)
                    served_ = stack.enter_context(served(peer, self._folder / peer.name, own, to.ports, workers))
                    self._ask_without_key(peer, served_)
                    measure(peer, served_, callers, to)

    def _ask_without_key(self, peer: Peer, at: Served) -> None:
        """Who looks at keys and who doesn't is a part of what they do for their time."""
        about = self._about[peer.name]
        if "without_key" not in about:
            about["without_key"], _ = ask(at.port, bodies.PATH, {"Content-Type": "application/json"}, bodies.chat(300))

    def _closed(self, peer: Peer, at: Served, callers: Callers, _: Upstream) -> None:
        callers.closed_loop(at.port, 300, peer.warm_up_s, connections=peer.connections)
        for figure, size in _BODIES.items():
            if figure == "cpu-300" or (figure in self._plan.figures and peer is not DIRECT):
                self._closed_loop(peer, at, callers, figure, size)

    def _closed_loop(self, peer: Peer, at: Served, callers: Callers, figure: str, size: int) -> None:
        differ = figure == "cpu-heads"
        before = proc.cpu(at.pids)
        answered = callers.closed_loop(
            at.port, size, self._plan.seconds, connections=peer.connections, differ=differ
        ).check()
        spent_ns = proc.cpu(at.pids).since_ns(before)
        if peer is not DIRECT:
            self._results.add(figure, peer.name, spent_ns / 1000 / answered.requests)
        if figure == "cpu-300":
            self._results.add("rps-1", peer.name, answered.requests / answered.seconds)

    def _paced(self, peer: Peer, at: Served, callers: Callers, _: Upstream) -> None:
        assert self._rate is not None
        rate = self._rate
        most = self._results.median("rps-1", peer.name)
        if most is not None and most / 2 < rate:
            rate = most / 2
            self._note(peer, f"latency at {rate:.0f}/s, half of its most")
        before = proc.cpu(at.pids)
        said = callers.open_loop(at.port, rate, self._plan.seconds)
        spent_ns = proc.cpu(at.pids).since_ns(before)
        for name in ("p50", "p99", "p999"):
            self._results.add(f"added-{name}", peer.name, said[f"{name}_ms"])
        if peer is not DIRECT:
            self._results.add("cpu-rate", peer.name, spent_ns / 1000 / said["requests"])

    def _first(self, peer: Peer, at: Served, callers: Callers, to: Upstream) -> None:
        set_pace(to.ports[:1], 3, INTERVAL_MS)
        count = int(self._plan.seconds * 1000 / FIRST_APART_MS)
        said = callers.streams(at.port, count, FIRST_APART_MS, 60.0)
        for name in ("p50", "p99"):
            self._results.add(f"first-{name}", peer.name, said[f"first_{name}_ms"])

    def _chunks(self, peer: Peer, at: Served, callers: Callers, to: Upstream) -> None:
        if peer is DIRECT:
            return
        count = peer.streams
        if count != STREAMS:
            self._note(peer, f"chunks of {count} streams")
        set_pace(to.ports[:1], CHUNKS, INTERVAL_MS)
        before = proc.cpu(at.pids)
        said = callers.streams(at.port, count, INTERVAL_MS / STREAMS, 60.0)
        spent_ns = proc.cpu(at.pids).since_ns(before)
        self._results.add("cpu-chunk", peer.name, spent_ns / 1000 / (said["streams"] * CHUNKS))

    def _resting(self, peer: Peer, at: Served, callers: Callers, _: Upstream) -> None:
        if peer is DIRECT:
            return
        time.sleep(_SETTLE_S)
        self._remember("rest", peer, at)
        with callers.idle(at.port, HELD):
            time.sleep(_SETTLE_S)
            self._remember("idle", peer, at)

    def _streaming(self, peer: Peer, at: Served, callers: Callers, to: Upstream) -> None:
        if peer is DIRECT:
            return
        rest = proc.memory(at.pids)
        set_pace(to.ports[:1], 1000, peer.pace_ms)
        with callers.held_streams(at.port, HELD, apart_ms=2.0):
            time.sleep(_SETTLE_S + peer.pace_ms / 1000)
            full = self._remember("streams", peer, at)
        self._results.add("stream-memory", peer.name, (full.pss_bytes - rest.pss_bytes) / HELD / 1000)

    def _throughput(self, peer: Peer, at: Served, callers: Callers, _: Upstream) -> None:
        load = functools.partial(callers.closed_loop, at.port, 300, connections=peer.connections, threads=2)
        load(peer.warm_up_s)
        answered = load(self._plan.seconds).check()
        self._results.add("rps-2", peer.name, answered.requests / answered.seconds)

    def _remember(self, when: str, peer: Peer, at: Served) -> proc.Memory:
        memory = proc.memory(at.pids)
        self._results.add(f"rss-{when}", peer.name, memory.rss_bytes / _MB)
        self._results.add(f"pss-{when}", peer.name, memory.pss_bytes / _MB)
        return memory

    def _half_of_the_slowest_router(self) -> float:
        """Of those that are fast at all; of whoever is there, where no router is."""
        routers = [peer.name for peer in self._peers if peer.is_router] or [peer.name for peer in self._peers]
        most = [rate for name in routers if (rate := self._results.median("rps-1", name))]
        if not most:
            raise Failed("cannot choose a rate: nobody's most is known (give one: --rate)")
        return float(int(min(most) / 2))

    def _note(self, peer: Peer, text: str) -> None:
        before = self._results.notes.get(peer.name)
        if before is None:
            self._results.notes[peer.name] = text
        elif text not in before:
            self._results.notes[peer.name] = f"{before}; {text}"

    def _wants(self, *names: str) -> bool:
        return any(name in self._plan.figures for name in names)

    @contextmanager
    def _excused(self, peer: Peer) -> Iterator[None]:
        try:
            yield
        except (Failed, OSError) as error:
            self._results.failures[peer.name] = str(error)
            self._say(f"{peer.name}: {error}")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {text}\n")
        sys.stderr.flush()

"""What modelgrid's scaler is compared with: a fixed number, and a target of ongoing requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from bench.autoscale.replica import Server
from bench.autoscale.simulate import Seen

from modelgrid.planner import scale as scaler
from modelgrid.planner.pulse import Told, fold
from modelgrid.planner.scale import Wanted, scale
from modelgrid.spec import Model, ModelName, ModelSpec, Need, Replica, ReplicaId, Scaling, State
from modelgrid.spec.pulse import Pulse

_EPOCH = 1_000_000.0  # to the planner, no clock begins at 0


@dataclass(slots=True)
class Fixed:
    """Always the same."""

    count: int

    def want(self, _seen: Seen) -> int:
        """Always the same."""
        return self.count

    def leaves(self, _seen: Seen, _surplus: int) -> Sequence[Server]:
        """Nobody ever does."""
        return ()


@dataclass(slots=True)
class TargetOngoing:
    """Ongoing requests, as a mean over the last while, divided by a target; a change of the number is made when it has
    been asked for long enough without a break. So Ray Serve and Knative scale."""

    target: float
    up_s: float = 30.0
    down_s: float = 600.0
    mean_s: float = 30.0
    least: int = 1
    most: int = 1_000
    _past: deque[int] = field(default_factory=deque)
    _since: float | None = None
    _is_up: bool = False

    def want(self, seen: Seen) -> int:
        """Their number, with those that start."""
        self._past.append(seen.waiting + sum(server.in_flight for server in seen.servers))
        while len(self._past) > max(1.0, self.mean_s):
            self._past.popleft()
        count = len(seen.servers)
        mean = sum(self._past) / len(self._past)
        desired = min(self.most, max(self.least, ceil(mean / self.target)))
        if desired == count:
            self._since = None
            return count
        if self._since is None or self._is_up != (desired > count):
            self._since, self._is_up = seen.now, desired > count
        delay_s = self.up_s if self._is_up else self.down_s
        if seen.now - self._since < delay_s:
            return count
        self._since = None
        return desired

    def leaves(self, seen: Seen, surplus: int) -> Sequence[Server]:
        """Those that start, then those with the fewest requests."""
        return sorted(seen.servers, key=lambda s: (s.ready_at <= seen.now, s.in_flight))[:surplus]


@dataclass(slots=True)
class Modelgrid:
    """The planner's own scaler, fed as the controller feeds it."""

    scaling: Scaling
    load_s: float
    pulse: Pulse = Pulse()  # noqa: RUF009  frozen
    wanted: Wanted = Wanted(0, "")  # noqa: RUF009

    def want(self, seen: Seen) -> int:
        """Their number, with those that start."""
        told = Told(
            arrived=seen.arrived,
            ended=seen.finished,
            tokens=seen.input_tokens + seen.output_tokens,
            ttft=tuple(seen.ttft[-64:]),
            in_flight=sum(server.in_flight for server in seen.servers),
            waiting=seen.waiting,
            ready=sum(server.ready_at <= seen.now for server in seen.servers),
            load_s=self.load_s,
        )
        self.pulse = fold(self.pulse, told, _EPOCH + seen.now, self.scaling)
        self.wanted = scale(
            self._model(seen), [_replica(server, seen.now) for server in seen.servers], _EPOCH + seen.now
        )
        return self.wanted.count

    def leaves(self, seen: Seen, _surplus: int) -> Sequence[Server]:
        """As the planner says."""
        replicas = [_replica(server, seen.now) for server in seen.servers]
        servers = {str(server.id): server for server in seen.servers}
        going = scaler.surplus(self._model(seen), replicas, _EPOCH + seen.now)
        return [servers[replica.id] for replica, _ in going]

    def _model(self, seen: Seen) -> Model:
        spec = ModelSpec(ModelName("m"), "vllm", scaling=self.scaling)
        return Model(spec, Need(0), waiting=seen.waiting, load_s=self.load_s, pulse=self.pulse)


def _replica(server: Server, now: float) -> Replica:
    is_ready = server.ready_at <= now
    return Replica(
        ReplicaId(str(server.id)),
        ModelName("m"),
        "",
        State.READY if is_ready else State.STARTING,
        (),
        since=_EPOCH + server.created,
        created=_EPOCH + server.created,
        why="",
        ready_at=_EPOCH + server.ready_at if is_ready else None,
        in_flight=server.in_flight,
    )

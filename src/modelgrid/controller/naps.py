"""How models sleep: as their engine estimates it, until they have slept; and not for a while after it has failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from modelgrid.engines import ENGINES
from modelgrid.spec import MAIN, Asleep, Fleet, Machine, ModelName, ModelSpec, Need, Replica, State, Unknown

AGAIN_S = 600.0  # after sleep, or waking, has failed, replicas of the model are stopped instead for so long
_SETTLED_S = 2.0  # asleep for so long, what it holds was measured asleep
_NEWEST = 0.5  # how much the newest waking counts beside those before
_STEPS = 100  # of its memory: what it keeps is remembered in these, as it is never quite the same
_JITTER_STEPS = 2

_Key = tuple[ModelName, str]  # a model, and its revision


@dataclass(frozen=True, slots=True)
class _Known:
    wake_s: float | None = None
    kept_steps: int | None = None
    failed_at: float | None = None


class Naps:
    """Learns from the replicas of each lap."""

    def __init__(self) -> None:
        self._known: dict[_Key, _Known] = {}

    def sleep(
        self, spec: ModelSpec, need: Need | Unknown, weights_bytes: int | None, machine: Machine, now: float
    ) -> Asleep | None:
        """How a replica of `spec` sleeps; None where it should rather be stopped."""
        if spec.sleep is None or isinstance(need, Unknown):
            return None
        estimate = ENGINES[spec.engine].sleep(spec, need, weights_bytes, machine)
        known = self._known.get((spec.name, spec.revision))
        if estimate is None or known is None:
            return estimate
        if known.failed_at is not None and 0 <= now - known.failed_at < AGAIN_S:
            return None
        return replace(
            estimate,
            share=estimate.share if known.kept_steps is None else known.kept_steps / _STEPS,
            wake_s=estimate.wake_s if known.wake_s is None else known.wake_s,
        )

    def learn(self, before: Fleet, after: Iterable[Replica]) -> None:
        """Take in a lap: the fleet before it was looked at, with what was measured, and the replicas thereafter."""
        turned = {replica.id: replica.turning for replica in before.replicas if replica.state is State.ASLEEP}
        now = before.now
        for replica in after:
            key = (replica.model, replica.revision)
            if (turning := turned.get(replica.id)) is not None:
                self._turned(key, turning, replica, now)
            is_settled = replica.state is State.ASLEEP and replica.turning is None and now - replica.since >= _SETTLED_S
            if is_settled and replica.id in before.held:
                self._measured(key, replica, before.held[replica.id])

    def _turned(self, key: _Key, turning: str, replica: Replica, now: float) -> None:
        known = self._known.get(key, _Known())
        if replica.state in (State.STOPPING, State.FAILED):
            self._known[key] = replace(known, failed_at=now)
        elif turning == "awake" and replica.state is State.READY and replica.took_s is not None:
            last_s = replica.took_s if known.wake_s is None else known.wake_s
            self._known[key] = replace(known, wake_s=last_s + _NEWEST * (replica.took_s - last_s), failed_at=None)

    def _measured(self, key: _Key, replica: Replica, held: Mapping[str, int]) -> None:
        on_gpus = [share for share in replica.shares if share.device != MAIN]
        parts = [
            held[share.device] / share.memory_bytes
            for share in on_gpus or replica.shares
            if share.device in held and share.memory_bytes
        ]
        if not parts:
            return
        steps = min(_STEPS, math.ceil(max(parts) * _STEPS))
        known = self._known.get(key, _Known())
        if known.kept_steps is None or not known.kept_steps - _JITTER_STEPS <= steps <= known.kept_steps:
            self._known[key] = replace(known, kept_steps=steps)

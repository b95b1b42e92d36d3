"""From what is known of a model to what one replica needs, and how that came about. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from modelgrid.engines import ENGINES
from modelgrid.spec import Machine, ModelSpec, Need, Unknown
from modelgrid.spec.weights import Estimate, Weights

MARGIN = 1.1  # of what was measured: the next run may serve longer requests, or more of them at once


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that replicas of a model have held, of what they compute on and of main memory beside it."""

    memory_bytes: int | None
    main_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Sized:
    """What one replica needs."""

    need: Need
    basis: Literal["configured", "measured", "estimated"]
    estimate: Estimate | None = None  # what was estimated, also where something else holds
    peak: Peak | None = None  # what was measured, without the margin


def accelerator(spec: ModelSpec, machine: Machine) -> str:
    """What its replicas compute on, on this machine."""
    return "cpu" if spec.gpus == 0 or not machine.gpus else machine.accelerator


def sized(spec: ModelSpec, machine: Machine, weights: Weights | Unknown, peak: Peak | None) -> Sized | Unknown:
    """What the configuration says, else what was measured, else the engine's estimate."""
    on = accelerator(spec, machine)
    engine = ENGINES[spec.engine]
    known = Weights(0) if isinstance(weights, Unknown) else weights
    estimate = engine.estimate(spec, known, on)
    shown = None if isinstance(weights, Unknown) else estimate
    main_bytes = _main_bytes(spec, estimate, peak) if on != "cpu" else 0
    if spec.memory_bytes is not None or spec.gpus:
        need = Need(spec.memory_bytes, spec.gpus, main_bytes, estimate.spreads)
        return Sized(need, "configured", shown, peak)
    measured = _measured(estimate, peak, machine, on) if shown or not estimate.fills else None
    if measured is not None:
        return Sized(Need(measured, spec.gpus, main_bytes, estimate.spreads), "measured", shown, peak)
    if not isinstance(weights, Unknown):
        need = Need(estimate.memory_bytes, spec.gpus, main_bytes, estimate.spreads)
        return Sized(need, "estimated", estimate, peak)
    if weights.is_coming:
        return weights
    return Unknown(f"nobody knows how much memory it needs: {weights.why} (try: set needs.memory)")


def _measured(estimate: Estimate, peak: Peak | None, machine: Machine, on: str) -> int | None:
    """No more than there is, so that one that has once eaten everything can be tried again. Of an engine that fills
    what it is given only what it took beyond its estimate counts: a margin on that would grow with every start."""
    if peak is None or peak.memory_bytes is None:
        return None
    if estimate.fills:
        return peak.memory_bytes if peak.memory_bytes > estimate.memory_bytes else None
    devices = machine.gpus if on != "cpu" else (machine.main,)
    most = max((device.memory_bytes for device in devices if device is not None), default=0)
    wanted = math.ceil(peak.memory_bytes * MARGIN)
    return wanted if estimate.spreads else max(min(wanted, most), min(wanted, estimate.memory_bytes))


def _main_bytes(spec: ModelSpec, estimate: Estimate, peak: Peak | None) -> int:
    if spec.main_bytes is not None:
        return spec.main_bytes
    return math.ceil(peak.main_bytes * MARGIN) if peak is not None and peak.main_bytes else estimate.main_bytes

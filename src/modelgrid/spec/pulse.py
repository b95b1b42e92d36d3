"""The pulse of a model: what its traffic was lately, which scaling steers by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is known of a model's traffic over the last while. Times are seconds."""

    arrivals: float = 0.0  # requests a second

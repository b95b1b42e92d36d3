"""Unknown is a value: what could not be found out is never read as idle, zero or empty."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be had, and why."""

    why: str
    is_coming: bool = False  # it is being found out: wait, instead of telling anybody

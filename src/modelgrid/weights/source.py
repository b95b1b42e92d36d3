"""What a model's source may be: a local path, a hub id, ``package:NAME``, or ``stand-in``."""

from __future__ import annotations

import re

from modelgrid.spec.source import STAND_IN

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")


class WeightsError(Exception):
    """Weights could not be had; the text says what, why, and what to do."""


def hub_id(source: str) -> str | None:
    """The id on the hub, or None where the source is of another kind. Safe as a relative path."""
    if source == STAND_IN or not _HUB_ID.fullmatch(source) or ".." in source:
        return None
    return source


def is_path(source: str) -> bool:
    """Whether it is a local path."""
    return source.startswith("/")

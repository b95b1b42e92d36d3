"""Sizes and durations as people write them: ``16GiB``, ``500MB``, ``15m``, ``1h30m``."""

from __future__ import annotations

import re
from decimal import Decimal

_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(text: str | int) -> int:
    """Bytes from ``16GiB``, ``500MB`` or a plain number of bytes. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if not match or match[2].lower() not in _BYTES:
        raise ValueError(f"{text!r} is not a size (write for example 16GiB, 500MB or a number of bytes)")
    return int(Decimal(match[1]) * _BYTES[match[2].lower()])


def parse_seconds(text: str | float) -> float:
    """Seconds from ``15m``, ``1h30m``, ``500ms`` or a plain number of seconds. Raises ValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _not_negative(float(text), text)
    compact = str(text).strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a duration (write for example 90s, 15m, 1h30m)")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _not_negative(value: float, text: object) -> float:
    if not value >= 0:
        raise ValueError(f"{text!r} is not a duration: it is negative")
    return value


def format_bytes(count: int) -> str:
    """``1.5 GiB``: the largest unit that leaves at least one, to a tenth below a hundred."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.5:  # what would be rounded up to 1024 is 1.0 of the next
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """``850ms``, ``4.2s``, ``3m20s``, ``2h05m``, ``3d04h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"

"""The last routing table on disk: for a gateway worker that starts while the controller is away."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from modelgrid.spec import RoutingTable
from modelgrid.spec.messages import decode_table, encode


def write_table(path: Path, table: RoutingTable) -> None:
    """Replace the file at once; only its owner may read it, as it holds engines' keys."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(encode(table))
    fresh.replace(path)


def read_table(path: Path) -> RoutingTable | None:
    """The table in the file; None where there is none that can be read."""
    try:
        return decode_table(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None

"""What a worker leaves for the controller, in a file: all that it has counted, where telling might be lost."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import structlog

from modelgrid.spec.usage import LEGACY, Legacy

_log = structlog.get_logger()


def write_legacy(folder: Path, legacy: Legacy) -> None:
    """Leave it in `folder`, in the place of what was left before."""
    if not legacy.used:
        return
    path = folder / LEGACY.format(legacy.incarnation)
    fresh = path.with_suffix(".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(legacy))
        fresh.replace(path)
    except OSError as error:  # callers are served all the same
        _log.error("usage not kept", path=str(path), why=str(error))

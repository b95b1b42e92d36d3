"""What workers left behind, read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from modelgrid.spec.usage import LEGACY, Legacy

log = structlog.get_logger()


def read_legacies(folder: Path) -> Iterator[tuple[Path, Legacy]]:
    """Each file, and what it says. One that can't be read is put aside."""
    for path in folder.glob(LEGACY.format("*")):
        try:
            yield path, msgspec.json.decode(path.read_bytes(), type=Legacy)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.DecodeError) as error:
            log.error("usage.unreadable", path=str(path), why=str(error))
            path.replace(path.with_suffix(".unreadable"))

"""The memory of a daemon's engines, watched from outside while something happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e2e import memory_watch
from modelgrid.config.paths import find_paths


@contextlib.contextmanager
def watched(home: Path) -> Iterator[dict[str, Any]]:
    """What the watch has seen of the modelgrid at `home`, once the block is left."""
    instance = str(find_paths({"MODELGRID_HOME": str(home)}).state)
    seen: dict[str, Any] = {}
    with subprocess.Popen(
        [sys.executable, str(Path(memory_watch.__file__)), instance],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        try:
            yield seen
        finally:
            told, _ = watch.communicate()
            seen.update(json.loads(told))

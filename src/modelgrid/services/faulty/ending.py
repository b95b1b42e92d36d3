"""How the process speaks and dies."""

from __future__ import annotations

import os
import sys
import time
from typing import NoReturn


def die(reason: str, code: int) -> NoReturn:
    """End at once, as a crash does: the reason is the last line, nothing is finished or cleaned up."""
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(code)


def log(line: str) -> None:
    sys.stderr.write(f"INFO {time.strftime('%H:%M:%S')} [faulty] {line}\n")
    sys.stderr.flush()

"""Models made on the spot, for where no weights can be had: tiny, of random weights; what they make means nothing.

A kind is a module of this package, with ``make(folder)``; it runs in an environment that has the kind's libraries.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Final

NAME: Final = "stand-in"  # what a configuration and ``--model`` call it
TEXT: Final = "text"


def folder(kind: str) -> Path:
    """The model of that kind, within the environment that runs this, and going with it. Made where it is missing."""
    # A text model's folder tells its name to callers, so it is called as they call it.
    where = Path(sys.prefix) / "share" / "modelgrid" / (NAME if kind == TEXT else f"{NAME}-{kind}")
    make(kind, where)
    return where


def make(kind: str, where: Path) -> None:
    """Make a model in the folder `where`, unless there is one: whole or not at all, so two that make it at once don't
    disturb each other."""
    if where.exists():
        return
    maker = importlib.import_module(f"{__name__}.{kind}").make
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where.parent, prefix=f".{where.name}-") as made:
        maker(Path(made))
        try:
            Path(made).rename(where)
        except OSError:
            if not where.exists():
                raise
        Path(made).mkdir(exist_ok=True)  # for TemporaryDirectory to remove

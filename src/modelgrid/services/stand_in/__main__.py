"""Make a stand-in, and become a command that uses it.

``python -m modelgrid.services.stand_in FOLDER`` makes a text model, in an environment that has transformers and torch;
``--kind vision`` another one. ``python -m modelgrid.services.stand_in [FOLDER] -- COMMAND …`` makes it where it is
missing, and becomes COMMAND in the folder that holds it, so that the command may name the model by FOLDER's last part.
Without FOLDER it lies within the environment that made it, and goes with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from modelgrid.services import stand_in

USAGE = "usage: python -m modelgrid.services.stand_in [--kind KIND] [FOLDER] [-- COMMAND …]"


def main(argv: list[str] | None = None) -> None:
    """Make the model; become the command after ``--``, if there is one."""
    given = sys.argv[1:] if argv is None else argv
    before, command = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    kind = stand_in.TEXT
    if before[:1] == ["--kind"] and len(before) > 1:
        kind, before = before[1], before[2:]
    if len(before) > 1 or (before and before[0].startswith("-")):
        sys.exit(USAGE)
    if before:
        folder = Path(before[0]).absolute()
        stand_in.make(kind, folder)
    else:
        folder = stand_in.folder(kind)
    sys.stderr.write(f"{stand_in.NAME}: a model of random weights, made on the spot in {folder}: it speaks nonsense\n")
    sys.stderr.flush()
    if command:
        os.chdir(folder.parent)
        os.execvp(command[0], command)  # noqa: S606  what the caller asks for


if __name__ == "__main__":
    main()

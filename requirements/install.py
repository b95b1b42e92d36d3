"""Installs what a requirements file pins, and tells how far it is: ``python install.py FILE``.

pip alone says either nothing for half a minute or hundreds of lines.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_COUNTED = ("Collecting ", "Processing ", "Ignoring ", "Requirement already")  # pip's words, a line for each package
_LINES_OF_FAILURE = 20


def main() -> None:
    """Install, or end with what pip said last."""
    file = Path(sys.argv[1])
    total = sum(line[:1].isalnum() for line in file.read_text(encoding="utf-8").splitlines())
    said, count = [], 0
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--require-hashes", "--requirement", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if line.startswith(_COUNTED):
                count += 1
                _tell(f"  {count} of {total} packages")
            elif line.startswith("Installing "):
                _tell(f"  installing {total} packages")
            else:
                said.append(line)
    if pip.returncode:
        sys.exit("\n" + "".join(said[-_LINES_OF_FAILURE:]) + f"cannot install {file}: pip failed (see above)")
    _tell(f"  {total} packages are installed", end="\n")


def _tell(text: str, end: str = "") -> None:
    """One line that changes on a terminal; elsewhere only how it ends."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r{text}\x1b[K{end}")
    elif end:
        sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""A Python environment for each peer that comes from PyPI, kept in ``.cache/bench`` from run to run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.gateway.processes import Failed

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / ".cache" / "bench"
_INSTALL_S = 900
_LINES_OF_FAILURE = 8


def program(peer: str) -> Path:
    """The program that a peer's package installs under its own name."""
    return _FOLDER / peer / "bin" / peer


def requirements(peer: str) -> Path:
    """All that a peer needs, pinned, with hashes. Made from the ``.in`` file beside it by ``make lock``."""
    return Path(__file__).with_name("requirements") / f"{peer}.txt"


def build(peer: str) -> None:
    """Make a peer's environment, unless it is there and its requirements are still the same. Raises Failed."""
    folder = _FOLDER / peer
    digest = hashlib.sha256(requirements(peer).read_bytes() + sys.version.encode()).hexdigest()
    ready = folder / "ready"
    if ready.exists() and ready.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    uv = Path(sys.executable).with_name("uv")
    _run(peer, [str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)])
    pinned = ["--require-hashes", "--requirement", str(requirements(peer))]
    _run(peer, [str(uv), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *pinned])
    ready.write_text(digest)


def version(peer: str) -> str:
    """As pinned."""
    lines = requirements(peer).read_text().splitlines()
    return next(line.split()[0].partition("==")[2] for line in lines if line.startswith(f"{peer}=="))


def _run(peer: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"cannot build {peer}: {error}") from error
    if done.returncode:
        why = "\n    ".join(done.stderr.splitlines()[-_LINES_OF_FAILURE:])
        raise Failed(f"cannot build {peer}: uv ended with code {done.returncode}\n    {why}")

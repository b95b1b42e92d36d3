"""The stand-in's launcher; what it makes is tried by the engines' end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", "-m", "modelgrid.services.stand_in", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_it_becomes_the_command_in_the_folder_that_holds_the_model(tmp_path: Path) -> None:
    (tmp_path / "stand-in").mkdir()
    (tmp_path / "stand-in" / "config.json").write_text("{}")
    ran = run(str(tmp_path / "stand-in"), "--", sys.executable, "-c", "import os; print(os.getcwd())", "--", "x")
    assert (ran.returncode, ran.stdout.strip()) == (0, str(tmp_path))
    assert "it speaks nonsense" in ran.stderr


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    ran = run(str(tmp_path / "stand-in"), "--", "true")
    assert ran.returncode == 1
    assert "No module named 'torch'" in ran.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_call_is_told_how() -> None:
    ran = run("--folder", "x")
    assert ran.returncode == 1
    assert ran.stderr.startswith("usage: ")

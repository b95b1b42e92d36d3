"""Help: quick, complete, and the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from modelgrid import __version__
from modelgrid.cli.reference import reference
from modelgrid.cli.tree import LazyGroup, root
from modelgrid.gateway.worker import is_compiled

Run = Callable[..., subprocess.CompletedProcess[str]]

_IMPORTED = """
import sys
from modelgrid.cli import main
sys.argv = ["modelgrid", *sys.argv[1:]]
try:
    main()
except SystemExit as left:
    assert left.code == 0, left.code
heavy = {"fastapi", "pydantic", "httpx", "rich", "huggingface_hub", "uvicorn", "asyncio", "sqlite3", "yaml"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["model", "--help"], ["status", "--help"], ["key", "-h"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTED, *words], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


def test_the_list_of_commands_says_of_each_what_the_command_says_itself() -> None:
    assert isinstance(root, LazyGroup)
    context = click.Context(root)
    said = {name: root.get_command(context, name) for name in root.lazy}
    assert {name: command.get_short_help_str(100) for name, command in said.items() if command} == {
        name: summary for name, (_, summary) in root.lazy.items()
    }


def test_the_reference_page_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
    assert page.read_text() == reference(), "make it anew: python -m modelgrid.cli.reference > docs/reference/cli.md"


def test_the_version_is_told_and_whether_the_request_path_is_compiled(run: Run) -> None:
    assert run("--version").stdout == f"modelgrid {__version__} ({'compiled' if is_compiled() else 'plain Python'})\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["statsu"], "there is no command 'statsu' (did you mean 'status'?)"),
        (["fly"], "there is no command 'fly' (there are: serve, stop, status,"),
        (["model", "load"], "Missing argument 'MODEL'"),
        (["logs", "x", "--lines", "0"], "0 is not in the range"),
        (["status", "--watch"], "--watch needs a terminal"),
        (["status", "--watch", "--json"], "--watch is for people"),
        (["config", "show", "--running", "--config", "x"], "leave out --config"),
    ],
)
def test_wrong_usage_leaves_with_two_and_says_what_would_be_right(run: Run, words: list[str], says: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr

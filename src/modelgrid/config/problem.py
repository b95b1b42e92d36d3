"""What is wrong with a configuration, and where: all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem. `where` names a field (``models.qwen.engine``), a variable or an option (``--port``)."""

    line: int | None
    column: int | None
    where: str
    message: str


class ConfigError(Exception):
    """A configuration that can't be used; its text has every problem, one a line."""

    def __init__(self, problems: Sequence[ConfigProblem], path: Path | None) -> None:
        self.problems = tuple(problems)
        self.path = path
        super().__init__("\n".join(_line(problem, path) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'vllm'?``, or nothing where nothing is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def _line(problem: ConfigProblem, path: Path | None) -> str:
    said = f"{problem.where}: {problem.message}" if problem.where else problem.message
    if problem.line is None:
        return f"{_shown(path)}: {said}" if not problem.where else said
    return f"{_shown(path)}:{problem.line}:{problem.column}: {said}"


def _shown(path: Path | None) -> str:
    """As short as it can be pasted into an editor or a shell."""
    if path is None:
        return "the embedded default"
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)

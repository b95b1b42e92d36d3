"""The request path can be compiled, and is where that was asked for: what `hatch_build.py` says of compiled classes."""

import ast
import os
import tomllib
from pathlib import Path

from modelgrid.gateway.worker import is_compiled

_ROOT = Path(__file__).parents[3]
_HOOK = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
_COMPILED = set(_HOOK["custom"]["compiled"])
_CLASSES = {
    node.name: (file.stem, node)
    for file in sorted((_ROOT / "src/modelgrid/gateway").glob("*.py"))
    for node in ast.parse(file.read_text()).body
    if isinstance(node, ast.ClassDef)
}


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def _is_protocol(name: str) -> bool:
    return name in _CLASSES and "Protocol" in _bases(_CLASSES[name][1])


def test_what_is_tested_is_compiled_where_that_was_asked_for() -> None:
    assert is_compiled() == (os.environ.get("MODELGRID_COMPILE") == "1")


def test_what_derives_from_a_compiled_class_is_compiled_too() -> None:
    left_out = [
        name
        for name, (module, node) in _CLASSES.items()
        for base in _bases(node)
        if base in _CLASSES and _CLASSES[base][0] in _COMPILED and module not in _COMPILED
    ]
    assert left_out == []


def test_compiled_classes_derive_from_what_can_be_compiled() -> None:
    allowed = ("Protocol", "Generic[", "StrEnum", "Exception")
    others = {
        f"{name}({base})"
        for name, (module, node) in _CLASSES.items()
        for base in _bases(node)
        if module in _COMPILED and base not in _CLASSES and not base.startswith(allowed)
    }
    assert others == set()


def test_no_default_is_lost() -> None:
    lost = [
        f"{name}: {ast.unparse(line)}"
        for name, (module, node) in _CLASSES.items()
        for line in node.body
        if module in _COMPILED and isinstance(line, ast.AnnAssign) and line.value is not None
        if any(_is_protocol(word) for word in ast.unparse(line.annotation).split(" | "))
    ]
    assert lost == []

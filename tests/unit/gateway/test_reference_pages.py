"""The reference pages say what the gateway does, and miss nothing of it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from modelgrid.config import schema
from modelgrid.gateway import answers, endpoints_page, errors_page, limits_page
from modelgrid.gateway.endpoints import ENDPOINTS
from modelgrid.gateway.errors_page import IN_STREAMS, ROWS
from modelgrid.gateway.options import GatewayOptions

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "src/modelgrid/gateway").glob("*.py"))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("endpoints", endpoints_page.reference),
        ("errors", errors_page.reference),
        ("limits", limits_page.reference),
    ],
)
def test_the_page_is_current(name: str, reference: Callable[[], str]) -> None:
    page = ROOT / f"docs/reference/{name}.md"
    step = f"run: .venv/bin/python -m modelgrid.gateway.{name}_page > docs/reference/{name}.md"
    assert page.read_text(encoding="utf-8") == reference(), step


def test_every_endpoint_has_its_line() -> None:
    lines = endpoints_page.reference().splitlines()
    rows = [line for row in ENDPOINTS for line in lines if line.startswith(f"| {row.method} | `{row.path}` |")]
    assert len(rows) == len(ENDPOINTS)


def calls(*names: str) -> Iterator[list[ast.expr]]:
    """The positional arguments of each call of functions and methods of the request path."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in names:
                    yield node.args


def text(node: ast.expr) -> str:
    """A constant's, or a name's."""
    return str(node.value) if isinstance(node, ast.Constant) else getattr(node, "attr", getattr(node, "id", ""))


def is_said(node: ast.expr | None) -> TypeGuard[ast.Constant]:
    """It stands there, and isn't handed on."""
    return isinstance(node, ast.Constant)


def test_every_error_that_is_made_has_its_line() -> None:
    made = set()
    for status, kind, *rest in (found for found in calls("error") if len(found) > 1):
        if is_said(status):  # else it is the engine's, in other words
            code = rest[1] if len(rest) > 1 else None
            made.add((int(text(status)), getattr(answers, text(kind)), text(code) if is_said(code) else ""))
    assert made == {(row.status, row.kind, row.code) for row in ROWS}
    assert len(ROWS) == len(made)


def test_every_end_of_a_stream_has_its_line() -> None:
    made = {
        (text(code), getattr(answers, text(kind)))
        for kind, code, _ in calls("break_off", "_break_off")
        if is_said(code)
    }
    no_stream = {("controller_lost", answers.SERVER)}  # GET /metrics
    assert made - no_stream == {(code, kind) for code, kind, _ in IN_STREAMS}


def test_every_limit_says_what_it_limits() -> None:
    rows = [line.split(" | ") for line in limits_page.reference().splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows if row[-1].strip(" |") == ""] == []


def test_every_setting_of_a_limit_is_one() -> None:
    fields = schema()["$defs"]["GatewaySection"]["properties"]
    settings = {name.removeprefix("gateway.") for name in limits_page.SETTINGS.values()}
    assert settings <= fields.keys()
    assert limits_page.SETTINGS.keys() <= GatewayOptions.__dataclass_fields__.keys()

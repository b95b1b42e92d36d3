"""The reference page of the limits, made from the constants that hold them and the comments beside those."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from modelgrid.gateway import breaker, multipart, options, receiver, wishes
from modelgrid.spec.units import format_bytes

_INTRODUCTION: Final = """\
# Limits

Everything in the gateway has a limit. Those with a setting are for you to choose, in the
[configuration](configuration.md); the others are fixed, and stand here so that nobody has to guess. What goes beyond
one is answered with an [error](errors.md).

What a model takes is in [`models.NAME.limits`](configuration.md#modelsnamelimits), what a key may have is said when it
is made: `modelgrid key create NAME --requests-per-minute N --tokens-per-minute N --concurrency N`. Both hold over all
workers. Minutes slide: what counts is the last sixty seconds.

<!-- made by `python -m modelgrid.gateway.limits_page`, which prints this page -->
"""

_BREAKER: Final = """\
Each replica has a circuit breaker. A loss (no connection, or one that broke) opens it at once. Errors in its answers
open it when they are many, while others of its model do better. While it is open, nothing is sent there; then one
request is, as a probe, and its answer closes it."""

_WAITING: Final = """\
Who waits for a replica is sent by its priority, and gains a level of it with time: a request of priority p is as far
ahead as one that came p levels earlier. So one of the lowest priority is behind those of the highest that come within
two hundred levels' time after it, and no later one; among equals, who came first is first. `high` is 50, `normal` 0 and
`low` -50."""

SETTINGS: Final = {
    "body_bytes": "gateway.body",
    "upload_bytes": "gateway.upload",
    "connections": "gateway.connections",
    "connect_timeout_s": "gateway.connect",
    "first_byte_timeout_s": "gateway.first_byte",
    "idle_timeout_s": "gateway.stall",
    "grace_s": "gateway.grace",
}

_NO_LIMITS: Final = frozenset(
    (
        *("worker", "link_socket", "table_file", "control_socket", "ledger", "row", "workers", "needs_key"),
        *("tls", "cors", "trusted_proxies", "log_requests", "log_format", "request_log"),
    )
)


def reference() -> str:
    """``docs/reference/limits.md``."""
    return (
        f"{_INTRODUCTION}\n## Of a worker\n\nEach of `gateway.workers` keeps these by itself.\n\n"
        f"| limit | value | setting | what is limited |\n| --- | --- | --- | --- |\n{''.join(_settings())}"
        + _section("Of the request path", "", options)
        + _section("Of a request's head", "", receiver)
        + _section("Of a request that waits", _WAITING, wishes)
        + _section("Of an upload", "", multipart)
        + _section("Of a replica that fails", _BREAKER, breaker)
    )


def _settings() -> Iterator[str]:
    """What a worker is told at its start, as far as it is a limit."""
    (told,) = (node for node in _tree(options).body if isinstance(node, ast.ClassDef))
    for name, comment in _assigned(told.body, _comments(options)):
        if name not in _NO_LIMITS:
            value = _shown(name, options.GatewayOptions.__dataclass_fields__[name].default)
            setting = f"`{SETTINGS[name]}`" if name in SETTINGS else ""
            yield f"| `{name}` | {value} | {setting} | {comment} |\n"


def _section(heading: str, text: str, module: ModuleType) -> str:
    rows = "".join(
        f"| `{name.lstrip('_')}` | {_shown(name, getattr(module, name))} | {comment} |\n"
        for name, comment in _assigned(_tree(module).body, _comments(module))
        if isinstance(getattr(module, name), int | float | tuple)
    )
    said = f"{text}\n\n" if text else ""
    return f"\n## {heading}\n\n{said}| limit | value | what is limited |\n| --- | --- | --- |\n{rows}"


def _assigned(body: list[ast.stmt], comments: dict[int, str]) -> Iterator[tuple[str, str]]:
    """The names that are declared with a type, and the comments on their lines."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, comments.get(node.lineno, "").replace("|", "\\|")


def _shown(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(name, part) for part in value)
    assert isinstance(value, int | float)
    if name.endswith("_bytes_per_s"):
        return f"{format_bytes(int(value))} a second"
    if name.upper().endswith("_BYTES"):
        return format_bytes(int(value)).replace(".0 ", " ")
    return f"{value:g} s" if name.upper().endswith("_S") else f"{value:,}"


def _comments(module: ModuleType) -> dict[int, str]:
    """A module's comments by their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(_source(module)).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(_source(module))


def _source(module: ModuleType) -> str:
    """Also of a compiled module, which lies beside its source."""
    return Path(__file__).with_name(f"{module.__name__.rpartition('.')[2]}.py").read_text()


if __name__ == "__main__":
    sys.stdout.write(reference())

"""An event as one line of text: ``2026-11-21T07:00:00.123Z info replica.ready replica=x model=y ms=12``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def as_line(_logger: object, _method: str, event: Any) -> str:
    """A structlog renderer: time, level, what happened, then ``key=value``. Never more than one line."""
    fields = dict(event)
    head = [str(fields.pop(name, "")) for name in ("timestamp", "level", "event")]
    head[2] = head[2] if _BARE.fullmatch(head[2]) else json.dumps(head[2], ensure_ascii=False)
    pairs = [f"{name}={_written(value)}" for name, value in fields.items()]
    return _one_line(" ".join([*head, *pairs]))


def _written(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """JSON escapes what ends a line, but for these that some readers take for it."""
    return re.sub(r"[\x7f-\x9f\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)

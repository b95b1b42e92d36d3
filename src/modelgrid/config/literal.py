"""Values that are handed on as JSON: here a plain scalar has a type, and what stands in quotes is a text."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from modelgrid.config.document import At, Document, Value

_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False}
_MOST_DIGITS = 1000  # longer ones take Python long to read


def with_literals(document: Document, section: Value, at: At) -> Value:
    """The model's (or choice's) `section`, with the JSON text of each value that ``parameters`` puts into requests."""
    parameters = section.get("parameters") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(parameters, dict):
        return section
    made = dict(parameters)
    for kind in ("set", "default"):
        fields = parameters.get(kind)
        if isinstance(fields, dict):
            below = (*at, "parameters", kind)
            made[kind] = {name: _json(document, value, (*below, name)) for name, value in fields.items()}
    return {**section, "parameters": made}


def _json(document: Document, value: Value, at: At) -> str:
    return json.dumps(_typed(document, value, at), ensure_ascii=False)


def _typed(document: Document, value: Value, at: At) -> Any:
    if isinstance(value, dict):
        return {name: _typed(document, item, (*at, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(document, item, (*at, index)) for index, item in enumerate(value)]
    if value is None or at in document.quoted:
        return value
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if not _NUMBER.fullmatch(value):
        return value
    number: float = math.inf
    if len(value) <= _MOST_DIGITS:
        number = int(value) if _INTEGER.fullmatch(value) else float(value)
    if math.isinf(number):
        document.add(at, "is too large for a number: write a smaller one, or put it in quotes if it is a text")
        return 0
    return number

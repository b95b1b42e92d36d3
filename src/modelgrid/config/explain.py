"""What the schema found wrong, in words that say the next step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modelgrid.config.document import At
from modelgrid.config.fields import ModelSection
from modelgrid.config.problem import did_you_mean
from modelgrid.spec.secret import is_secret_name

_LONGEST_SHOWN = 60
_NAMES = re.compile(r"(?<!\S)(--?[\w-]+)|([\w-]+)(?=\s*[=:])")  # --option, NAME= and name: within a text
# What other programs call a field of ours.
_OTHER_NAMES = {
    "model": "source", "path": "source", "model_path": "source", "model_name": "served", "base_url": "url",
    "api_base": "url", "api_key": "key", "token": "key", "environment": "env", "arguments": "args", "alias": "aliases",
    "vram": "needs.memory", "gpu_memory": "needs.memory", "memory": "needs.memory", "min_replicas": "scaling.min",
    "max_replicas": "scaling.max", "replicas": "scaling.max", "ttl": "scaling.idle", "idle_timeout": "scaling.idle",
    "timeout": "start_timeout", "health_check": "health", "cmd": "command", "backend": "engine", "runtime": "engine",
}  # fmt: skip


def explained(error: ValidationError, section: type[BaseModel]) -> Iterator[tuple[At, str, bool]]:
    """Each problem: the way to it within the section, the message, and whether it is with the key."""
    for details in error.errors(include_url=False):
        at = tuple(step for step in details["loc"] if step != "[key]")
        of_key = details["type"] == "extra_forbidden" or "[key]" in details["loc"]
        yield at, _message(details, at, section), of_key


def unknown_field(name: str, section: type[BaseModel], above: At = ()) -> str:
    """An unknown field's message: the near one, else all that there are."""
    fields = list(section.model_fields)
    message = f"{name!r} is not a field here"
    if section is ModelSection and not above and name in _OTHER_NAMES:
        return f"{message}; did you mean {_OTHER_NAMES[name]!r}?"
    return message + (did_you_mean(name, fields) or f": there is {', '.join(fields)}")


def _message(details: ErrorDetails, at: At, section: type[BaseModel]) -> str:
    value, context = details.get("input"), details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return unknown_field(str(at[-1]), _section_at(section, at[:-1]), at[:-1])
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"{_shown(value, at)} is too small: at least {_number(context['ge'])}"
        case "less_than_equal":
            return f"{_shown(value, at)} is too large: at most {_number(context['le'])}"
        case "list_type":
            return f"{_shown(value, at)} is not a list{_as_list(value, at)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"{_shown(value, at)} is not a mapping: write fields below it, as `name: value`"
        case "string_type":
            return "is empty: write a value, or remove it" if value is None else f"{_shown(value, at)} is not a text"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return f"{_shown(value, at)} is not a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return f"{_shown(value, at)} is not a number"
        case "literal_error":
            return f"{_shown(value, at)} is not one of {context['expected']}"
        case "missing":
            return f"says no {at[-1]}: add `{at[-1]}:`"
        case "bool_parsing" | "bool_type":
            return f"{_shown(value, at)} is neither true nor false"
    return details["msg"]


def _section_at(section: type[BaseModel], at: At) -> type[BaseModel]:
    for step in at:
        if isinstance(step, int):
            continue  # of a list, whose field has told what is in it
        annotation = section.model_fields[step].annotation
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                section = inner
    return section


def _shown(value: object, at: At) -> str:
    """The value as it was written; a secret never is."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if at[:1] == ("env",) or any(is_secret_name(str(step)) for step in at) or _names_secret(str(value)):
        return "the value"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _names_secret(text: str) -> bool:
    return any(is_secret_name(match[1] or match[2]) for match in _NAMES.finditer(text))


def _as_list(value: object, at: At) -> str:
    if not isinstance(value, str) or _shown(value, at) == "the value":
        return ""
    try:
        words = shlex.split(value) if at and at[0] in ("args", "command") else [value]
    except ValueError:
        return ""
    written = f"[{', '.join(words)}]"
    return f": write {written}" if len(written) <= _LONGEST_SHOWN else ""


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

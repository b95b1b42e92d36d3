"""Secrets are taken out of what is logged: by the name of a field, and by what keys and credentials look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgrid.spec.secret import MASK, is_secret_name

_LONGEST = 8192  # characters of one value

_SHAPES = (
    re.compile(r"\b(?:mg|sk|hf|rpa|ghp)[-_][A-Za-z0-9_-]{8,}"),  # ours, OpenAI's, Hugging Face's, RunPod's, GitHub's
    re.compile(r"(?<=\bBearer )[^\s\"',]+", re.IGNORECASE),
    re.compile(r"(?<=\bBasic )[A-Za-z0-9+/=]{8,}", re.IGNORECASE),
    re.compile(r"(?<=://)[^/@\s\"']+(?=@)"),  # user:password@ of a URL
    # NAME=value and "name": "value" in texts of others
    re.compile(
        r"(?<![A-Za-z0-9])((?:\w{1,40}[_-])?(?:api[_-]?key|key|token|secret|password|authorization)[\"']?\s*[=:]\s*[\"']?)"
        r"(?!Bearer |Basic )[^\s\"',;&}]+",
        re.IGNORECASE,
    ),
)


def redacted(text: str) -> str:
    """`text` without what looks like a secret."""
    for shape in _SHAPES:
        text = shape.sub(_masked, text)
    return text


def redact_fields(_logger: object, _method: str, event: Any) -> Any:
    """A structlog processor: secret fields masked, at any depth; what is no plain value becomes its text."""
    return {name: _value(name, value) for name, value in event.items()}


def _value(name: str, value: object) -> object:
    if value is not None and is_secret_name(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: _value(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value("", item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redacted(_shortened(str(value)))


def _shortened(text: str) -> str:
    """The beginning and the end of what would fill the log."""
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def _masked(match: re.Match[str]) -> str:
    kept = match[1] if match.re.groups else ""
    return kept + MASK

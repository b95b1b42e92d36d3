"""Placeholders: what a launch leaves for its runtime to fill in."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PATTERN = re.compile(r"\{\{|\{([a-z]+)\}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with ``{name}`` replaced for every name of `values`, and ``{{`` by a brace.

    All else stays as it is, so that JSON in an argument needs no care for its closing braces.
    """

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "{" if name is None else values.get(name, match.group())

    return _PATTERN.sub(replace, text)

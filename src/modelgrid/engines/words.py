"""The words of a command line: what a user wrote, as a launch holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

PLACEHOLDERS = ("port", "host", "python", "bin")

# What `modelgrid.runtimes.placeholders` looks for, in the same order: ``{{``, then a name.
_NAMED = re.compile(r"\{\{|\{([A-Za-z_]+)\}")
_BRACE = re.compile(r"\{\{|\{(?:" + "|".join(PLACEHOLDERS) + r")\}|\{")


def literal(text: str) -> str:
    """`text` itself: every brace means a brace."""
    return text.replace("{", "{{")


def literal_env(env: Mapping[str, str]) -> dict[str, str]:
    """Environment variables, in the same way."""
    return {name: literal(value) for name, value in env.items()}


def template(text: str) -> str:
    """`text` with its placeholders, and ``{{`` for a brace. Every other brace (JSON has many) means itself."""
    return _BRACE.sub(lambda match: "{{" if match[0] == "{" else match[0], text)


def placeholders(texts: Sequence[str]) -> list[str]:
    """The names of what are placeholders in `texts`, or look like some: ``{port}``, ``{prot}``; not ``{{port}``."""
    return [match[1] for text in texts for match in _NAMED.finditer(text) if match[1]]


def option(args: Sequence[str], *names: str) -> str | None:
    """The value of the last of these options among a user's arguments, as ``--option VALUE`` or ``--option=VALUE``."""
    value = None
    for place, arg in enumerate(args):
        name, has_value, written = arg.partition("=")
        if name in names:
            value = written if has_value else next(iter(args[place + 1 : place + 2]), None)
    return value


def has_option(args: Sequence[str], *options: str) -> bool:
    """Whether one of `options` is among a user's arguments, as ``--option`` or ``--option=…``."""
    return any(arg.split("=")[0] in options for arg in args)

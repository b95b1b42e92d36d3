"""The words of a command line: what a user wrote, as a launch holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

PLACEHOLDERS = ("port", "host", "python", "bin")

_BRACE = re.compile(r"\{(?!(?:" + "|".join(PLACEHOLDERS) + r")\})")
_NAMED = re.compile(r"\{([A-Za-z_]+)\}")


def taken(texts: Sequence[str]) -> tuple[str, ...]:
    """A user's words: the placeholders are kept, and every other brace (JSON has many) means itself."""
    return tuple(_BRACE.sub("{{", text) for text in texts)


def taken_env(env: Mapping[str, str]) -> dict[str, str]:
    """A user's environment variables, in the same way."""
    return dict(zip(env, taken(tuple(env.values())), strict=True))


def has_option(args: Sequence[str], *options: str) -> bool:
    """Whether one of `options` is among a user's arguments, as ``--option`` or ``--option=…``."""
    return any(arg.split("=")[0] in options for arg in args)


def unknown_placeholders(texts: Sequence[str]) -> list[str]:
    """What looks like a placeholder and is none: ``{prot}``."""
    return [name for text in texts for name in _NAMED.findall(text) if name not in PLACEHOLDERS]

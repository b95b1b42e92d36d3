"""``${NAME}`` in the file's texts: the value of an environment variable, which is how secrets come in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelgrid.config.document import At, Document, Value
from modelgrid.spec.secret import MASK, is_secret_name

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_NAMES_A_FILE = ("gateway", "tls", "key")
_SHORTEST_SECRET = 6  # masking what is shorter ("none", "EMPTY") would blot out ordinary text


def masked(text: str, secrets: Sequence[str]) -> str:
    """`text` without `secrets`; the longest first, as one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


@dataclass(frozen=True, slots=True)
class Taken:
    """What was met while a document was filled in."""

    variables: set[str] = field(default_factory=set)  # names of those that a value came from
    secrets: set[str] = field(default_factory=set, repr=False)  # values, by the names of variables and of fields


def fill_in(document: Document, environ: Mapping[str, str]) -> Taken:
    """Replace every ``${NAME}`` in `document`. What came from an override stands as it is."""
    taken = Taken()
    document.values = {key: _filled(value, (key,), document, environ, taken) for key, value in document.values.items()}
    secrets = taken.secrets | _named_secrets(document.values)
    return Taken(taken.variables, {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET})


def _named_secrets(values: Mapping[str, Value], at: At = ()) -> set[str]:
    """What is written at ``key:``, or in ``env:`` at a variable that holds a secret."""
    found: set[str] = set()
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _named_secrets(value, (*at, name))
        elif isinstance(value, str) and is_secret_name(name) and (*at, name) != _NAMES_A_FILE:
            found.add(value)
    return found


def _filled(value: Value, at: At, document: Document, environ: Mapping[str, str], taken: Taken) -> Value:
    place = document.places.get(at)
    if place is not None and place.origin is not None:
        return value
    if isinstance(value, dict):
        return {key: _filled(item, (*at, key), document, environ, taken) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, (*at, index), document, environ, taken) for index, item in enumerate(value)]
    return value if value is None else _filled_text(value, at, document, environ, taken)


def _filled_text(text: str, at: At, document: Document, environ: Mapping[str, str], taken: Taken) -> str:
    wrong: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        body = _BODY.fullmatch(match["body"])
        if not match["end"] or not body:
            step = "write ${NAME}, or $${ for the characters ${ themselves"
            wrong.append(f"{match[0]!r} is not a variable: {step}")
            return ""
        name, default = body["name"], body["default"]
        found = environ.get(name)
        if default is not None and not found:
            return default
        if found is None:
            wrong.append(f"the environment variable {name} is not set: set it, or write ${{{name}:-a default}}")
            return ""
        taken.variables.add(name)
        if is_secret_name(name):
            taken.secrets.add(found)
        return found

    filled = _REFERENCE.sub(replaced, text)
    for message in wrong:
        document.add(at, message)
    if wrong:
        document.broken.add(at)
    return filled

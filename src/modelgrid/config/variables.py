"""``${NAME}`` in the file's texts: the value of an environment variable, which is how secrets come in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from modelgrid.config.document import At, Document, Value

MASK = "********"

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_SECRET_NAME = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)
_SHORTEST_SECRET = 4  # masking what is shorter would blot out ordinary text


def masked(text: str, secrets: Sequence[str]) -> str:
    """`text` without `secrets`; the longest first, as one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a variable or field of this name holds a secret, as names go."""
    return _SECRET_NAME.search(name) is not None


def fill_in(document: Document, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Replace every ``${NAME}`` in `document`; answers the secrets among the values that came in.

    What came from an override stands as it is.
    """
    secrets: set[str] = set()
    document.values = {
        key: _filled(value, (key,), document, environ, secrets) for key, value in document.values.items()
    }
    return tuple(sorted(secrets))


def _filled(value: Value, at: At, document: Document, environ: Mapping[str, str], secrets: set[str]) -> Value:
    place = document.places.get(at)
    if place is not None and place.origin is not None:
        return value
    if isinstance(value, dict):
        return {key: _filled(item, (*at, key), document, environ, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, (*at, index), document, environ, secrets) for index, item in enumerate(value)]
    return value if value is None else _filled_text(value, at, document, environ, secrets)


def _filled_text(text: str, at: At, document: Document, environ: Mapping[str, str], secrets: set[str]) -> str:
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
        found = (environ.get(name) or default) if default is not None else environ.get(name)
        if found is None:
            wrong.append(f"the environment variable {name} is not set: set it, or write ${{{name}:-a default}}")
            return ""
        if is_secret_name(name) and len(found) >= _SHORTEST_SECRET:
            secrets.add(found)
        return found

    filled = _REFERENCE.sub(replaced, text)
    for message in wrong:
        document.add(at, message)
    if wrong:
        document.broken.add(at)
    return filled

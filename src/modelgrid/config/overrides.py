"""Fields set from outside the file: ``MODELGRID_GATEWAY__PORT=9001``, and over it the command line's options."""

from __future__ import annotations

import re
from collections.abc import Mapping

from modelgrid.config.document import At, Document, Place, Value, dotted, read_document
from modelgrid.config.problem import ConfigProblem, did_you_mean

_PREFIX = "MODELGRID_"
_LEVEL = "__"


def is_override(name: str) -> bool:
    """Whether an environment variable names a field: ``MODELGRID_HOME`` and its like don't."""
    return name.startswith(_PREFIX) and _LEVEL in name.removeprefix(_PREFIX)


def apply_environment(document: Document, environ: Mapping[str, str]) -> None:
    """Set what environment variables name. A double underscore goes a level down.

    Models are matched without regard to case, with ``_`` for whatever is no letter or digit.
    """
    for name in sorted(filter(is_override, environ)):
        origin = f"environment {name}"
        levels = name.removeprefix(_PREFIX).split(_LEVEL)
        at = _field(document, levels, origin)
        if at is not None:
            _set(document, at, environ[name], origin)


def apply_options(document: Document, options: Mapping[str, str]) -> None:
    """Set what the command line says; ``{"gateway.port": "9001"}`` is its ``--port 9001``."""
    for name, text in sorted(options.items()):
        at = tuple(name.split("."))
        _set(document, at, text, "--" + str(at[-1]).replace("_", "-"))


def _field(document: Document, levels: list[str], origin: str) -> At | None:
    fields = [level.lower() for level in levels]
    if fields[0] not in ("models", "virtual"):
        return tuple(fields)
    name = _model(document, fields[0], levels[1], origin)
    if name is None:
        return None
    if fields[2:3] == ["env"] and len(levels) > 3:  # names of variables keep their case and their underscores
        return (fields[0], name, "env", _LEVEL.join(levels[3:]))
    return (fields[0], name, *fields[2:])


def _model(document: Document, section: str, word: str, origin: str) -> str | None:
    models = document.values.get(section)
    names = list(models) if isinstance(models, dict) else []
    matches = [name for name in names if _plain(name) == _plain(word)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        message = f"names more than one model: {', '.join(map(repr, matches))}"
    else:
        message = f"names no model: there is {', '.join(map(repr, names)) or 'none'}{did_you_mean(word, names)}"
    document.problems.append(ConfigProblem(None, None, origin, message))
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def _set(document: Document, at: At, text: str, origin: str) -> None:
    values: dict[str, Value] = document.values
    for depth, step in enumerate(at[:-1], start=1):
        inner = values.get(str(step))
        if inner is None:
            inner = values[str(step)] = {}
            document.keys.setdefault(at[:depth], Place(origin=origin))
        if not isinstance(inner, dict):
            message = f"there are no fields below {dotted(at[:depth])}"
            document.problems.append(ConfigProblem(None, None, origin, message))
            return
        values = inner
    values[str(at[-1])] = _value(text)
    document.quoted = {known for known in document.quoted if known[: len(at)] != at}
    for table in (document.places, document.keys):
        for inner_at in [known for known in table if known[: len(at)] == at]:
            del table[inner_at]
        table[at] = Place(origin=origin)


def _value(text: str) -> Value:
    """The text itself; what starts like a YAML list or mapping is read as one."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    wrapped = read_document("value: " + text)
    return text if wrapped.problems else wrapped.values["value"]

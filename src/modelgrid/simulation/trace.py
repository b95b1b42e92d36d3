"""Reading traces: Azure's CSV, and modelgrid's own JSON lines. A line that can't be read is told with its place."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from modelgrid.simulation.request import PATIENCE_S, Request
from modelgrid.simulation.synthetic import zipf_weights
from modelgrid.spec import ModelName

Assign = Callable[[], ModelName]  # the model of the next request of a trace that names none
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_STEP_CSV = f"a recorded trace has the columns {', '.join(_COLUMNS)}"
_STEP_JSON = 'a line is {"at": seconds or an ISO time, "model": NAME, "input": tokens, "output": tokens}'


class TraceError(Exception):
    """A trace can't be read; the message says where, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Line:
    """One request as a trace has it."""

    number: int
    at: float
    input: int
    output: int
    model: str | None = None
    priority: int = 0


def read_trace(
    path: Path,
    models: Sequence[ModelName],
    assign: Assign | None,
    deadline_s: float | None = None,
    patience_s: float = PATIENCE_S,
) -> list[Request]:
    """The requests of a file, in order of time, the first at 0. Requests that name no model have the one that
    `assign` tells. Raises TraceError."""
    lines = list(_lines(path))
    if not lines:
        raise TraceError(f"cannot simulate {path}: it has no requests ({_STEP_CSV}; of the other kind: {_STEP_JSON})")
    first = min(line.at for line in lines)
    return [
        Request(
            at=line.at - first,
            model=_model(path, line, models, assign),
            input=line.input,
            output=line.output,
            priority=line.priority,
            deadline_s=deadline_s,
            patience_s=patience_s,
        )
        for line in sorted(lines, key=lambda line: line.at)
    ]


def zipf_law(models: Sequence[ModelName], exponent: float, seed: int) -> Assign:
    """Models by Zipf's law: the n-th of them ``1 / n ** exponent`` as often as the first."""
    dice = random.Random(seed)
    weights = zipf_weights(len(models), exponent)
    return lambda: dice.choices(models, weights)[0]


def turns_law(models: Sequence[ModelName]) -> Assign:
    """Models in turn."""
    count = -1

    def next_one() -> ModelName:
        nonlocal count
        count += 1
        return models[count % len(models)]

    return next_one


def law(text: str, models: Sequence[ModelName]) -> Assign:
    """The law that `text` states: ``zipf:EXPONENT:SEED`` or ``turns``. Raises TraceError."""
    match text.split(":"):
        case ["turns"]:
            return turns_law(models)
        case ["zipf", exponent, seed]:
            try:
                return zipf_law(models, float(exponent), int(seed))
            except ValueError:
                pass
    raise TraceError(f"cannot assign models by {text!r}: write zipf:EXPONENT:SEED, for example zipf:1.1:7, or turns")


def _lines(path: Path) -> Iterator[Line]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise TraceError(f"cannot read the trace {path}: {error.strerror} (name a file that is there)") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"cannot read the trace {path}: it is not UTF-8 text (save it as UTF-8)") from error
    if not text.strip():
        return iter(())
    is_json = text.lstrip()[:1] in ("{", "[")  # a list is told what a line is
    return _json_lines(path, text) if is_json else _csv_lines(path, text)


def _csv_lines(path: Path, text: str) -> Iterator[Line]:
    rows = csv.reader(text.splitlines())
    head = [name.strip() for name in next(rows, [])]
    missing = [name for name in _COLUMNS if name not in head]
    if missing:
        raise TraceError(f"cannot read the trace {path}: line 1 has no column {', '.join(missing)} ({_STEP_CSV})")
    for row in rows:
        if not row:
            continue
        number = rows.line_num
        if len(row) < len(head):
            raise _wrong(path, number, f"has {len(row)} of {len(head)} columns", "write all of them, or take it out")
        values = dict(zip(head, row, strict=False))
        yield Line(
            number=number,
            at=_time(path, number, "TIMESTAMP", values["TIMESTAMP"]),
            input=_tokens(path, number, "ContextTokens", values["ContextTokens"]),
            output=_tokens(path, number, "GeneratedTokens", values["GeneratedTokens"]),
        )


def _json_lines(path: Path, text: str) -> Iterator[Line]:
    for number, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            value = json.loads(written)
        except json.JSONDecodeError as error:
            raise _wrong(path, number, f"is not JSON: {error.msg} at column {error.colno}", _STEP_JSON) from error
        if not isinstance(value, dict):
            raise _wrong(path, number, "is not an object", _STEP_JSON)
        unknown = sorted(set(value) - {"at", "model", "input", "output", "priority"})
        missing = sorted({"at", "input", "output"} - set(value))
        if unknown or missing:
            what = f"has no {', '.join(missing)}" if missing else f"has {', '.join(unknown)}, which nobody knows"
            raise _wrong(path, number, what, _STEP_JSON)
        model, priority = value.get("model"), value.get("priority", 0)
        if model is not None and not isinstance(model, str):
            raise _wrong(path, number, f"model is {model!r}", "write a name")
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise _wrong(path, number, f"priority is {priority!r}", "write a whole number; more goes first")
        yield Line(
            number=number,
            at=_time(path, number, "at", value["at"]),
            input=_tokens(path, number, "input", value["input"]),
            output=_tokens(path, number, "output", value["output"]),
            model=model,
            priority=priority,
        )


def _time(path: Path, number: int, name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    text = str(value).strip()
    whole, point, fraction = text.partition(".")
    digits = len(fraction) - len(fraction.lstrip("0123456789"))
    try:  # seven digits after the point are Azure's; Python takes six
        then = datetime.fromisoformat(whole + point + fraction[: min(6, digits)] + fraction[digits:])
    except ValueError:
        step = "write seconds, or an ISO time like 2026-11-21T14:03:22.5Z"
        raise _wrong(path, number, f"{name} is {text!r}", step) from None
    return (then if then.tzinfo else then.replace(tzinfo=timezone.utc)).timestamp()  # noqa: UP017  reads as ISO does


def _tokens(path: Path, number: int, name: str, value: object) -> int:
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if count < 0 or isinstance(value, bool):
        raise _wrong(path, number, f"{name} is {value!r}", "write a number of tokens")
    return max(1, count)


def _model(path: Path, line: Line, models: Sequence[ModelName], assign: Assign | None) -> ModelName:
    if line.model is not None:
        if line.model not in models:
            there = ", ".join(models) or "none"
            raise _wrong(path, line.number, f"asks for the model {line.model!r}", f"there are: {there}")
        return ModelName(line.model)
    if assign is None:
        raise _wrong(path, line.number, "names no model", "add --model NAME, or --models zipf:1.1:7")
    return assign()


def _wrong(path: Path, number: int, what: str, step: str) -> TraceError:
    return TraceError(f"cannot read the trace {path}: line {number} {what} ({step})")

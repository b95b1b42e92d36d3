"""What a key is for, as people write and read it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelgrid.cli import screen
from modelgrid.spec.units import format_seconds, parse_seconds

if TYPE_CHECKING:
    from rich.text import Text

    from modelgrid.spec import Quota
    from modelgrid.store import KeyRecord

F = TypeVar("F", bound=Callable[..., Any])

_AT_LEAST_ONE = click.IntRange(min=1)
_LAST_YEAR = 5000  # that a key may expire in


def limit_options(command: F) -> F:
    """``--requests-per-minute``, ``--tokens-per-minute`` and ``--concurrency``."""
    for name, of in (
        ("--concurrency", "Requests that may be in flight at once."),
        ("--tokens-per-minute", "Tokens that may be used a minute, of prompts and answers together."),
        ("--requests-per-minute", "Requests that may be made a minute."),
    ):
        command = click.option(name, type=_AT_LEAST_ONE, metavar="N", help=of)(command)
    return command


def limits(requests_per_minute: int | None, tokens_per_minute: int | None, concurrency: int | None) -> Quota | None:
    """What these options say together."""
    from modelgrid.spec.messages import quota_of

    return quota_of(requests_per_minute, tokens_per_minute, concurrency)


def between_commas(written: str, option: str) -> tuple[str, ...]:
    """Names. Raises click.BadParameter where one is empty."""
    names = tuple(dict.fromkeys(name.strip() for name in written.split(",")))
    if not all(names):
        raise click.BadParameter(f"write names of {option[2:]} with commas between them", param_hint=option)
    return names


def operations_of(written: str) -> tuple[str, ...]:
    """Operations, by name. Raises click.BadParameter where there is no such."""
    from modelgrid.spec.operations import OPERATIONS

    names = between_commas(written, "--operations")
    for name in names:
        if name not in OPERATIONS:
            near = difflib.get_close_matches(name, OPERATIONS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(OPERATIONS)}"
            raise click.BadParameter(f"there is no operation {name!r} ({hint})", param_hint="--operations")
    return names


def duration(written: str, option: str) -> float:
    """Seconds. Raises click.BadParameter."""
    try:
        seconds = parse_seconds(written)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
    if not math.isfinite(seconds) or seconds > timedelta.max.total_seconds() / 1000:
        raise click.BadParameter(f"{written!r} is too long", param_hint=option)
    return seconds


def expiry(written: str, now: float) -> float:
    """A moment to come, in seconds since the epoch: a time from now, or a date, which is of this machine's clock and
    means its beginning. Raises click.BadParameter."""
    at = _moment(written, now)
    if not now < at < datetime(_LAST_YEAR, 1, 1).timestamp():
        why = "that is over" if at <= now else "that is too far away"
        raise click.BadParameter(f"cannot let a key end at {written!r}: {why}", param_hint="--expires")
    return at


def _moment(written: str, now: float) -> float:
    try:
        return datetime.fromisoformat(written).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return now + parse_seconds(written)
    except ValueError as error:
        raise click.BadParameter(
            f"{written!r} is neither a time nor a date (write for example 30d, 12h, 2027-01-31, 2027-01-31T18:00)",
            param_hint="--expires",
        ) from error


def state_of(key: KeyRecord, now: float) -> Text | str:
    """Whether a key opens, and until when."""
    if key.revoked is not None:
        return screen.state("revoked")
    if key.is_over(now):
        return screen.state("expired")
    parts = ["in use"]
    if key.expires is not None:
        parts.append(f"for {_left(key.expires - now)}")
    if (until := key.former_until(now)) is not None:
        parts.append(f"(its last secret for {_left(until - now)})")
    return " ".join(parts)


def quota_in_words(quota: Quota | None) -> str:
    """Limits; a dash where there are none."""
    if quota is None:
        return "-"
    told = (
        (quota.requests_per_minute, "requests/min"),
        (quota.tokens_per_minute, "tokens/min"),
        (quota.concurrency, "at once"),
    )
    return ", ".join(f"{most} {of}" for most, of in told if most is not None) or "-"


def in_words(key: KeyRecord) -> str:
    """What a key may use, and its group."""
    parts = []
    if "caller" in key.scopes:
        models = "all" if key.models is None else ", ".join(key.models)
        parts.append(models if key.operations is None else f"{models} for {', '.join(key.operations)}")
    parts += [scope.value for scope in key.scopes if scope.value != "caller"]
    told = " + ".join(parts)
    return told if key.group is None else f"{told} (group {key.group})"


def _left(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days" if seconds >= 2 * 86_400 else format_seconds(seconds)

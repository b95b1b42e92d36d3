"""Parts of sentences, made from facts: why something was begun or ended, and numbers as people say them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modelgrid.spec.reason import Cause, Reason
from modelgrid.spec.units import format_bytes, format_seconds

_NEGLIGIBLE = 0.03  # of a start: a shorter phase isn't worth a word

_PHASES = {
    "queued": "waiting for its turn",
    "weights": "fetching its weights",
    "environment": "preparing the environment that it runs in",
    "spawn": "starting its process",
    "load": "loading the model",
    "first_request": "answering a first request as a test",
}


def because(reason: Reason | None, why: str) -> str:
    """What follows on "it was started": ", because …", or the reason as it was written down."""
    clause = _clause(_BEGINNINGS, reason)
    return f", {clause}" if clause else _as_written(why)


def because_of_end(reason: Reason | None, why: str) -> str:
    """What follows on "it was stopped"."""
    clause = _clause(_ENDINGS, reason)
    return f", {clause}" if clause else _as_written(why)


Clauses = Mapping[str, str | Callable[[Reason], str]]


def _clause(clauses: Clauses, reason: Reason | None) -> str | None:
    if reason is None or reason.cause is None:
        return None
    clause = clauses.get(reason.cause)
    return clause if clause is None or isinstance(clause, str) else clause(reason)


def _as_written(why: str) -> str:
    return f": {first_line(why)}" if why.strip() else ""


def first_line(written: str) -> str:
    """The first line of what is there, without the full stop that a sentence adds."""
    return (written.strip().splitlines() or [""])[0].strip().rstrip(".")


def below(written: str) -> tuple[str, ...]:
    """The other lines: what an engine's log said."""
    return tuple(line for line in written.strip().splitlines()[1:] if line.strip())


def counted(count: int, noun: str) -> str:
    """``1 request``, ``2 requests``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def lasting(seconds: float) -> str:
    """``0.4 s``, ``38 s``, ``3 min 20 s``, ``2 h 5 min``: as one reads it aloud."""
    if seconds < 0.95:
        return f"{max(0.1, seconds):.1f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def place(reason: Reason | None) -> str:
    """`` on gpu0``, `` on gpu0 and gpu1 of node-2``; nothing where it isn't known."""
    if reason is None or not reason.devices:
        return ""
    where = " and ".join("main memory" if device == "cpu" else device for device in reason.devices)
    of = f" of machine {reason.machine}" if reason.machine not in (None, "local") else ""
    return f" {'in' if reason.devices == ('cpu',) else 'on'} {where}{of}"


def needs(reason: Reason | None) -> str:
    """`` It needed 14.0 GiB of memory, and 20.0 GiB were free there.``"""
    if reason is None or not reason.memory_bytes:
        return ""
    free = "" if reason.free_bytes is None else f", and {format_bytes(reason.free_bytes)} were free there"
    return f" It needed {format_bytes(reason.memory_bytes)} of memory{free}."


def start_s(phases: Mapping[str, float]) -> float:
    """How long a start took, without the time that a request waited for it to begin."""
    return sum(seconds for phase, seconds in phases.items() if phase != "queued")


def phase_said(phase: str) -> str:
    """``loading the model``."""
    return _PHASES.get(phase, phase)


def phases_said(phases: Mapping[str, float]) -> str:
    """``30 s loading the model, 8 s answering a first request as a test``: what took a while."""
    total = start_s(phases)
    said = [
        f"{lasting(seconds)} {phase_said(phase)}"
        for phase, seconds in phases.items()
        if phase != "queued" and seconds >= max(0.05, total * _NEGLIGIBLE)
    ]
    return ", ".join(said)


def _requested(reason: Reason) -> str:
    if (reason.waiting or 1) == 1:
        return "because a request came for it while no replica was running"
    first = f", the first of them for {lasting(reason.waited_s)}" if reason.waited_s else ""
    return f"because {reason.waiting} requests were waiting for it{first}, while no replica was running"


def _loaded(reason: Reason) -> str:
    if reason.in_flight is None and reason.waiting is None:
        return "because those that ran had enough to do"
    waiting = f" and {reason.waiting} waiting" if reason.waiting else ""
    work = f"{counted(reason.in_flight or 0, 'request')} in progress{waiting}"
    have = f" for {counted(reason.replicas, 'replica')}" if reason.replicas else ""
    target = f", where each should have {reason.target} at most (scaling.target)" if reason.target else ""
    verb = "was" if reason.in_flight == 1 and not reason.waiting else "were"
    return f"because there {verb} {work}{have}{target}"


def _late(reason: Reason) -> str:
    objective = f" of {format_seconds(reason.limit_s)}" if reason.limit_s is not None else ""
    return f"because answers began later than the model's objective{objective} allows"


def _room(reason: Reason) -> str:
    other = reason.other or "another model"
    waited = ""
    if reason.waiting:
        had = f"had waited up to {lasting(reason.waited_s)}" if reason.waited_s else "waited"
        waited = f", for which {counted(reason.waiting, 'request')} {had}"
    return f"to make room for {other}{waited}{_missed_least(reason)}"


def _missed_least(reason: Reason) -> str:
    if reason.in_flight:
        return ". Nothing that was idle would have been enough"
    if reason.idle_s is None:
        return ""
    return f". It was the one that is missed least: it had had no request for {lasting(reason.idle_s)}"


def _idle(reason: Reason) -> str:
    if reason.idle_s is None:
        return "because it had had no request for long enough"
    limit = f", where {lasting(reason.limit_s)} are allowed (scaling.idle)" if reason.limit_s is not None else ""
    return f"because it had had no request for {lasting(reason.idle_s)}{limit}"


def _shrunk(reason: Reason) -> str:
    now = f": {format_bytes(reason.total_bytes)} in all" if reason.total_bytes else ""
    return f"because models may take less memory than before{now}"


_BEGINNINGS: Clauses = {
    Cause.REQUEST: _requested,
    Cause.LOAD: _loaded,
    Cause.OBJECTIVE: _late,
    Cause.KEPT: "because the configuration says that it is always running (scaling.min)",
    Cause.BY_HAND: "because somebody asked for it by hand (modelgrid model load)",
}

_ENDINGS: Clauses = {
    Cause.ROOM: _room,
    Cause.IDLE: _idle,
    Cause.SPARE: "because fewer replicas were enough for the requests there were",
    Cause.BY_HAND: "because somebody asked for it by hand (modelgrid model unload)",
    Cause.CHANGED: "because the model's configuration was edited, and it still ran as it was before",
    Cause.REMOVED: "because the model was removed from the configuration",
    Cause.SHRUNK: _shrunk,
    Cause.SHUTDOWN: "because modelgrid itself was being stopped",
}

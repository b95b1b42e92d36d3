"""One sentence for each kind of event. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelgrid.cli.clauses import (
    because,
    because_of_end,
    below,
    counted,
    first_line,
    lasting,
    needs,
    phases_said,
    place,
    start_s,
)
from modelgrid.spec import Event
from modelgrid.spec.reason import Cause, Reason
from modelgrid.spec.units import format_bytes

Clock = Callable[[float], str]  # a moment, as the reader's clock shows it
Said = tuple[str, tuple[str, ...]]  # a sentence or two, and the lines that belong below them


@dataclass(frozen=True, slots=True)
class Moment:
    """An event, and what had happened before in the same life, oldest first."""

    event: Event
    before: tuple[Event, ...]
    clock: Clock

    @property
    def reason(self) -> Reason:
        return self.event.reason or _NOTHING_KNOWN

    def last(self, *whats: str) -> Event | None:
        """The newest of `whats` before."""
        return next((event for event in reversed(self.before) if event.what in whats), None)

    def after(self, *whats: str) -> str | None:
        """How long this came after the newest of `whats`."""
        found = self.last(*whats)
        return None if found is None else lasting(max(0.0, self.event.at - found.at))


_NOTHING_KNOWN = Reason()


def sentence(moment: Moment) -> Said:
    """What to say of an event. Also one that carries no facts, and one of a kind that isn't known, is told."""
    what = moment.event.what
    if what in _ALWAYS:
        return _ALWAYS[what], ()
    return _SENTENCES.get(what, _other)(moment)


def next_try(reason: Reason, clock: Clock) -> str:
    """When a model is tried again after a failure."""
    if reason.retry_at is None:
        return ""
    is_repeated = (reason.failures or 0) > 1
    times = f" It was failure {reason.failures} in a row, and each one makes the wait longer." if is_repeated else ""
    return f" The next try may be made at {clock(reason.retry_at)}.{times}"


def _start(moment: Moment) -> Said:
    reason = moment.reason
    again = f" It had failed {_times(reason.failures)} before." if reason.failures else ""
    return f"modelgrid started it{place(reason)}{because(reason, moment.event.why)}.{needs(reason)}{again}", ()


def _ready(moment: Moment) -> Said:
    begun = moment.last("start", "wake", "adopt", "found")
    phases = moment.reason.phases or {}
    if begun is not None and begun.what == "wake":
        return f"It was awake and answered requests again after {moment.after('wake')}.", ()
    if begun is not None and begun.what in ("adopt", "found"):
        return f"It answered, so requests were sent to it, {moment.after('adopt', 'found')} after it was found.", ()
    took = moment.after("start") or (lasting(start_s(phases)) if phases else None)
    said = phases_said(phases)
    return f"It was ready for requests{f' after {took}' if took else ''}{f': {said}' if said else ''}.", ()


def _drain(moment: Moment) -> Said:
    reason = moment.reason
    finish = f" {_its(reason.in_flight)} in progress could finish first." if reason.in_flight else ""
    purpose = ", to put it to sleep" if reason.then == "sleep" else ""
    return f"modelgrid sent it no more requests{purpose}{because_of_end(reason, moment.event.why)}.{finish}", ()


def _stop(moment: Moment) -> Said:
    drained = moment.last("drain")
    if drained is None:
        was_up = moment.last("ready", "found", "adopt") is not None
        begun = "modelgrid stopped it" if was_up else "modelgrid broke off its start"
        return f"{begun}{because_of_end(moment.reason, moment.event.why)}.", ()
    took = moment.after("drain")
    if moment.reason.in_flight:
        left = counted(moment.reason.in_flight, "request")
        return f"After {took} it still had {left} in progress. That was too long: it was stopped.", ()
    had = drained.reason.in_flight if drained.reason else None
    if had:
        return f"{_its(had)} had ended after {took}, so it was stopped.", ()
    return "It had no request in progress, so it was stopped.", ()


def _gone(moment: Moment) -> Said:
    held = moment.reason.memory_bytes
    memory = f"its memory ({format_bytes(held)})" if held else "its memory"
    later = moment.after("stop", "stopping", "failed", "adopt")
    return f"Its process was gone{f' {later} later' if later else ''}, and {memory} was free again.", ()


def _failed(moment: Moment) -> Said:
    during = None if moment.last("ready") else moment.after("start")
    begun = f"Its start failed after {during}" if during else "It failed"
    details = moment.reason.log or below(moment.event.why)
    wrote = " The last lines that its engine wrote:" if moment.reason.log else ""
    return f"{begun}: {first_line(moment.event.why)}.{next_try(moment.reason, moment.clock)}{wrote}", details


def _refuse(moment: Moment) -> Said:
    reason = moment.reason
    if reason.cause == Cause.FAILING:
        times = f" {_times(reason.failures)} in a row" if reason.failures else ""
        until = f" until the next try at {moment.clock(reason.retry_at)}" if reason.retry_at is not None else ""
        return f"As it had failed{times}, requests for it were answered with an error{until}.", ()
    return f"From then on requests for it were answered with an error: {first_line(moment.event.why)}.", ()


def _adopt(moment: Moment) -> Said:
    if moment.reason.cause in (Cause.CHANGED, Cause.REMOVED):
        return "modelgrid found it running, but no model is configured to run like that any more: it was stopped.", ()
    return f"modelgrid found it running without knowing of it, and took it over: {first_line(moment.event.why)}.", ()


def _sleep(moment: Moment) -> Said:
    why = "" if moment.last("drain") else because_of_end(moment.reason, moment.event.why)
    return f"modelgrid told it to sleep, which frees most of its GPU memory and is undone faster than a stop{why}.", ()


def _asleep(moment: Moment) -> Said:
    took = moment.after("sleep", "drain")
    return f"It was asleep{f' after {took}' if took else ''}, and most of its GPU memory was free.", ()


def _wake(moment: Moment) -> Said:
    return f"modelgrid woke it{because(moment.reason, moment.event.why)}.{needs(moment.reason)}", ()


def _other(moment: Moment) -> Said:
    why = moment.event.why
    return f"{moment.event.what.capitalize()}: {first_line(why) or 'no reason was written down'}.", below(why)


def _its(requests: int) -> str:
    return "Its request" if requests == 1 else f"Its {requests} requests"


def _times(count: int | None) -> str:
    return {None: "", 1: "once", 2: "twice"}.get(count, f"{count} times")


_ALWAYS = {
    "found": "modelgrid's controller was started again and found it still running, so it goes on.",
    "load": "Somebody asked by hand that it be loaded and stay so (modelgrid model load).",
    "unload": "Somebody asked by hand that it be unloaded (modelgrid model unload).",
    "stopping": "It ended by itself while it was to finish its requests.",
}

_SENTENCES: dict[str, Callable[[Moment], Said]] = {
    "start": _start,
    "ready": _ready,
    "drain": _drain,
    "stop": _stop,
    "gone": _gone,
    "failed": _failed,
    "refuse": _refuse,
    "adopt": _adopt,
    "sleep": _sleep,
    "asleep": _asleep,
    "wake": _wake,
}

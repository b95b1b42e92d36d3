"""What happened to all models, in short: a line for a start with its end, a stop, a failure, a refusal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelgrid.cli.clauses import because, because_of_end, first_line, lasting, place
from modelgrid.cli.sentences import Clock, Moment, sentence
from modelgrid.spec import Event
from modelgrid.spec.reason import Cause, Reason

_AT_ONCE_S = 1.0
_ALIKE_WITHIN = 2  # of a model's last entries: a failure and a refusal take turns in a loop of crashes


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to one model at a moment; or several times, the last one then."""

    at: float
    model: str
    text: str
    replicas: tuple[str, ...] = ()  # to which it happened
    times: int = 1
    until: float | None = None  # the last of several


def account(events: Sequence[Event], clock: Clock) -> tuple[Entry, ...]:
    """In order, the newest last. That a replica became ready is told with its start, that it was gone isn't told."""
    lives: dict[tuple[str, str | None], list[Event]] = {}
    for event in events:
        lives.setdefault((event.model, event.replica), []).append(event)
    entries: list[Entry] = []
    last: dict[str, list[int]] = {}  # where each model's last entries are
    for event in events:
        text = _text(event, lives[event.model, event.replica], clock)
        if text is None:
            continue
        recent = last.setdefault(event.model, [])
        same = next((index for index in recent[-_ALIKE_WITHIN:] if entries[index].text == text), None)
        if same is None:
            recent.append(len(entries))
            entries.append(Entry(event.at, event.model, text, _replica(event)))
            continue
        told = entries[same]
        entries[same] = replace(told, times=told.times + 1, until=event.at, replicas=(*told.replicas, *_replica(event)))
    return tuple(replace(entry, text=_counted(entry, clock)) for entry in entries)


def _counted(entry: Entry, clock: Clock) -> str:
    if entry.until is None:
        return entry.text
    if entry.until - entry.at < _AT_ONCE_S and len(set(entry.replicas)) == entry.times:
        return f"{entry.text} That holds for {entry.times} replicas of it."
    return f"{entry.text} This happened {entry.times} times, the last at {clock(entry.until)}."


def _replica(event: Event) -> tuple[str, ...]:
    return () if event.replica is None else (event.replica,)


def _text(event: Event, life: Sequence[Event], clock: Clock) -> str | None:
    reason = event.reason or Reason()
    place_in_life = next(index for index, other in enumerate(life) if other is event)
    before, after = life[:place_in_life], life[place_in_life + 1 :]
    match event.what:
        case "start" | "wake":
            verb = "started" if event.what == "start" else "woken"
            begun = f"It was {verb}{place(reason)}{because(event.reason, event.why)}"
            return (
                f"{begun}, and failed: {first_line(after[0].why)}."
                if _fails(after)
                else f"{begun}.{_outcome(event, after)}"
            )
        case "gone" | "asleep" | "sleep" | "stopping":
            return None
        case "ready" if any(other.what in ("start", "wake") for other in before):
            return None
        case "stop" if any(other.what == "drain" for other in before):
            return None
        case "drain" | "stop":
            verb = "put to sleep" if reason.then == "sleep" else "stopped"
            return f"It was {verb}{because_of_end(event.reason, event.why)}."
        case "failed" if before and before[-1].what in ("start", "wake"):
            return None  # told with its start
        case "failed":
            return f"It failed: {first_line(event.why)}."
        case "refuse" if reason.cause == Cause.FAILING:
            return "As it failed again and again, requests for it were answered with an error until the next try."
    return sentence(Moment(event, tuple(before), clock))[0]


def _fails(after: Sequence[Event]) -> bool:
    return bool(after) and after[0].what == "failed"


def _outcome(begun: Event, after: Sequence[Event]) -> str:
    if not after:
        return " It is not ready yet."
    return f" It was ready {lasting(after[0].at - begun.at)} later." if after[0].what == "ready" else ""

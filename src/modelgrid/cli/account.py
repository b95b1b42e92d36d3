"""What happened to all models, in short: a line for a start with its end, a stop, a failure, a refusal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelgrid.cli.clauses import because, because_of_end, first_line, lasting, place
from modelgrid.cli.sentences import Clock, Moment, next_try, sentence
from modelgrid.spec import Event
from modelgrid.spec.reason import Reason


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to one model at a moment; or several times, the last one then."""

    at: float
    model: str
    text: str
    replicas: tuple[str, ...] = ()  # to which it happened
    times: int = 1


def account(events: Sequence[Event], clock: Clock) -> tuple[Entry, ...]:
    """In order, the newest last. That a replica became ready is told with its start, that it was gone isn't told."""
    lives: dict[tuple[str, str | None], list[Event]] = {}
    for event in events:
        lives.setdefault((event.model, event.replica), []).append(event)
    entries: list[Entry] = []
    last: dict[str, int] = {}  # where a model's last entry is
    for event in events:
        text = _text(event, lives[event.model, event.replica], clock)
        if text is None:
            continue
        before = last.get(event.model)
        if before is not None and entries[before].text == text:
            told = entries[before]
            entries[before] = replace(told, times=told.times + 1, replicas=(*told.replicas, *_replica(event)))
            continue
        last[event.model] = len(entries)
        entries.append(Entry(event.at, event.model, text, _replica(event)))
    return tuple(replace(entry, text=_counted(entry)) for entry in entries)


def _counted(entry: Entry) -> str:
    if entry.times == 1:
        return entry.text
    if len(set(entry.replicas)) == entry.times:
        return f"{entry.text} That holds for {entry.times} replicas of it."
    return f"{entry.text} This happened {entry.times} times."


def _replica(event: Event) -> tuple[str, ...]:
    return () if event.replica is None else (event.replica,)


def _text(event: Event, life: Sequence[Event], clock: Clock) -> str | None:
    reason = event.reason or Reason()
    place_in_life = next(index for index, other in enumerate(life) if other is event)
    before, after = life[:place_in_life], life[place_in_life + 1 :]
    match event.what:
        case "start" | "wake":
            verb = "started" if event.what == "start" else "woken"
            return f"It was {verb}{place(reason)}{because(event.reason, event.why)}.{_outcome(event, after)}"
        case "gone" | "asleep" | "sleep" | "stopping":
            return None
        case "ready" if any(other.what in ("start", "wake") for other in before):
            return None
        case "stop" if any(other.what == "drain" for other in before):
            return None
        case "drain" | "stop":
            verb = "put to sleep" if reason.then == "sleep" else "stopped"
            return f"It was {verb}{because_of_end(event.reason, event.why)}."
        case "failed":
            return f"It failed: {first_line(event.why)}.{next_try(reason, clock)}"
    return sentence(Moment(event, tuple(before), clock))[0]


def _outcome(begun: Event, after: Sequence[Event]) -> str:
    if not after:
        return " It is not ready yet."
    return f" It was ready {lasting(after[0].at - begun.at)} later." if after[0].what == "ready" else ""

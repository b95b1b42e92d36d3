"""What happened to a model, told: events in, sentences by replica out. Pure; times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modelgrid.cli.clauses import first_line, place
from modelgrid.cli.sentences import Clock, Moment, sentence
from modelgrid.spec import Event

_TOLD_WHOLE = 2  # replicas in a row that failed alike
_REPEATED = ("found",)  # a controller that is started again and again finds each replica each time


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence about one event, or about several that were alike."""

    at: float
    text: str
    what: str
    details: tuple[str, ...] = ()  # what an engine wrote
    until: float | None = None  # the last of several
    events: int = 1


@dataclass(frozen=True, slots=True)
class Chapter:
    """The life of one replica; or, without one, what was done about the model meanwhile."""

    replica: str | None
    lines: tuple[Line, ...]
    place: str = ""
    folded: int = 0  # replicas before this one to which the same happened, told in the first line

    @property
    def begun(self) -> float:
        return self.lines[0].at


def tell(events: Sequence[Event], clock: Clock) -> tuple[Chapter, ...]:
    """All of `events`, which are one model's and in order, as chapters in the order in which they began."""
    chapters = [
        Chapter(
            group[0].replica, _lines(group, clock), place(next((e.reason for e in group if e.what == "start"), None))
        )
        for group in _groups(events)
    ]
    return tuple(_fold_failures(chapters, events))


def _groups(events: Iterable[Event]) -> list[list[Event]]:
    """By replica; what is of no replica stays together until another replica's life begins."""
    groups: list[list[Event]] = []
    lives: dict[str, list[Event]] = {}
    aside: list[Event] | None = None
    for event in events:
        if event.replica is None:
            if aside is None:
                aside = []
                groups.append(aside)
            aside.append(event)
        elif event.replica in lives:
            lives[event.replica].append(event)
        else:
            lives[event.replica] = [event]
            groups.append(lives[event.replica])
            aside = None
    return groups


def _lines(group: Sequence[Event], clock: Clock) -> tuple[Line, ...]:
    lines: list[Line] = []
    for index, event in enumerate(group):
        text, details = sentence(Moment(event, tuple(group[:index]), clock))
        line = Line(event.at, text, event.what, details)
        may_repeat = event.replica is None or event.what in _REPEATED
        if lines and may_repeat and (lines[-1].what, lines[-1].text) == (line.what, line.text):
            lines[-1] = replace(lines[-1], until=line.at, events=lines[-1].events + 1)
        else:
            lines.append(line)
    return tuple(_repeated(line, clock) for line in lines)


def _repeated(line: Line, clock: Clock) -> Line:
    if line.until is None:
        return line
    return replace(line, text=f"{line.text} This happened {line.events} times, the last at {clock(line.until)}.")


def _fold_failures(chapters: Sequence[Chapter], events: Sequence[Event]) -> Iterator[Chapter]:
    """Of replicas in a row that failed alike, the last is told whole, and the others before it in one line. That
    requests were refused in between belongs to it."""
    failures = {event.replica: first_line(event.why) for event in events if event.what == "failed"}
    run: list[Chapter] = []
    shape: object = None
    for chapter in chapters:
        own = _shape(chapter, failures)
        is_between = bool(run) and own is None and all(line.what == "refuse" for line in chapter.lines)
        if not is_between and (own is None or own != shape):
            yield from _folded(run)
            run, shape = [], own
        run.append(chapter)
    yield from _folded(run)


def _shape(chapter: Chapter, failures: Mapping[str | None, str]) -> object:
    if chapter.replica is None or chapter.replica not in failures:
        return None
    return failures[chapter.replica], any(line.what == "ready" for line in chapter.lines)


def _folded(run: Sequence[Chapter]) -> Iterator[Chapter]:
    lives = [chapter for chapter in run if chapter.replica is not None]
    if len(lives) <= _TOLD_WHOLE:
        yield from run
        return
    last = lives[-1]
    place = run.index(last)
    earlier, later = run[:place], run[place + 1 :]
    names = f"{lives[0].replica} to {lives[-2].replica}"
    refused = ", and requests were answered with an error in between" if len(earlier) >= len(lives) else ""
    first = Line(
        at=earlier[0].begun,
        text=f"Before this one {len(lives) - 1} replicas ({names}) failed in the same way{refused}.",
        what="failed",
        until=earlier[-1].lines[-1].at,
        events=sum(line.events for chapter in earlier for line in chapter.lines),
    )
    yield replace(last, lines=(first, *last.lines), folded=len(lives) - 1)
    yield from later

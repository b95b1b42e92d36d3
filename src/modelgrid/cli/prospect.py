"""What a model is, why, and what would have to happen for that to change: in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelgrid.cli.clauses import because, because_of_end, below, counted, first_line, lasting, phase_said, start_s
from modelgrid.cli.sentences import Clock
from modelgrid.planner.evict import PATIENCE_S, TURN
from modelgrid.spec import Event, ReplicaStatus, Why
from modelgrid.spec.units import format_bytes

_HOLDERS_SHOWN = 4


def headline(answer: Why, clock: Clock) -> tuple[str, str, tuple[str, ...]]:
    """The state, what follows on it, and lines that belong below: what an engine wrote."""
    model = answer.model
    if model.behind:
        return model.state, f": {first_line(model.why)}." if model.why else ".", ()
    if model.state == "ready":
        return model.state, _ready_because(answer), ()
    if model.state == "cold":
        return model.state, f" (not loaded){_cold_because(answer, clock)}", ()
    if model.state == "starting":
        return model.state, _starting_because(answer), ()
    return model.state, f": {first_line(model.why)}." if model.why else ".", below(model.why)


def prospects(answer: Why, clock: Clock) -> Iterator[str]:
    """What it waits for, and what happens next."""
    model = answer.model
    if model.behind:
        return
    if model.waiting:
        yield _who_waits(answer)
    match model.state:
        case "ready":
            yield from _until_it_goes(answer, clock)
        case "starting":
            yield from _until_it_is_ready(answer)
        case "failed" | "unavailable":
            yield from _until_the_next_try(answer, clock)
        case "asleep":
            yield "The next request wakes it, which takes less time than a start."
        case _:
            yield from _until_it_starts(answer)
    if model.note:
        yield f"Note: {model.note}."


def _who_waits(answer: Why) -> str:
    model = answer.model
    waits = f"{counted(model.waiting, 'request')} {'waits' if model.waiting == 1 else 'wait'} for it"
    if model.waiting_since is None:
        return f"{waits}."
    waited = lasting(max(0.0, answer.now - model.waiting_since))
    return f"{waits}, for {waited} now." if model.waiting == 1 else f"{waits}, the first of them for {waited} now."


def last_start_s(answer: Why) -> float | None:
    """How long a start of it took lately."""
    if answer.model.load_s is not None:
        return answer.model.load_s
    for event in reversed(answer.events):
        if event.what == "ready" and event.reason and event.reason.phases:
            return start_s(event.reason.phases)
    return None


def _ready_because(answer: Why) -> str:
    ready = [replica for replica in answer.replicas if replica.state == "ready"]
    if len(ready) != 1:
        return (
            f": {counted(len(ready), 'replica')} answer its requests."
            if ready
            else f": {first_line(answer.model.why)}."
        )
    begun = _begun(answer, ready[0])
    if begun is None or begun.what not in ("start", "wake"):
        return f": it answers requests ({first_line(ready[0].why)})." if ready[0].why else ": it answers requests."
    verb = "started" if begun.what == "start" else "woken"
    return f": it answers requests. It was {verb}{because(begun.reason, begun.why)}."


def _cold_because(answer: Why, clock: Clock) -> str:
    if answer.model.waiting:
        return ", and has yet to be started."
    ends = [event for event in answer.events if event.what in ("drain", "stop")]
    if not ends:
        return f": {first_line(answer.model.why)}."
    lives = {event.replica: event for event in reversed(ends)}  # the first step of each end is the one with the reason
    ended = lives[ends[-1].replica]
    begun = "it is being stopped since" if answer.replicas else "it was stopped at"
    return f": {begun} {clock(ended.at)}{because_of_end(ended.reason, ended.why)}."


def _starting_because(answer: Why) -> str:
    for replica in answer.replicas:
        if replica.state == "starting" and (begun := _begun(answer, replica)) is not None:
            return because(begun.reason, begun.why) + "."
    return f": {first_line(answer.model.why)}." if answer.model.why else "."


def _begun(answer: Why, replica: ReplicaStatus) -> Event | None:
    own = [event for event in answer.events if event.replica == replica.id]
    return next((event for event in reversed(own) if event.what in ("start", "wake", "adopt")), None)


def _until_it_goes(answer: Why, clock: Clock) -> Iterator[str]:
    model = answer.model
    if model.wish == "loaded":
        yield "It stays loaded, as somebody asked for that by hand, until: modelgrid model unload."
        return
    if model.wish == "unloaded":
        yield "Somebody asked by hand that it be unloaded, which happens as soon as its requests are answered."
        return
    if model.min:
        yield f"The configuration keeps {counted(model.min, 'replica')} running, also without requests (scaling.min)."
        return
    if model.idle_s is not None:
        begun = max((replica.since for replica in answer.replicas if replica.state == "ready"), default=0.0)
        earliest = max(model.last_used, begun) + model.idle_s
        when = f", at {clock(earliest)} at the earliest" if not model.in_flight else ""
        stopped = f"After {lasting(model.idle_s)} without a request it is stopped{when}"
        yield f"{stopped}; before that only if another model needs its memory."
        return
    yield "It stays until it has had no request for a while, or another model needs its memory."


def _until_it_is_ready(answer: Why) -> Iterator[str]:
    for replica in answer.replicas:
        if replica.state == "starting":
            now = f"; now it is {step}" if (step := _step(replica)) else ""
            yield f"Its start has taken {lasting(max(0.0, answer.now - replica.since))} so far{now}."
    yield from _took_before(answer)


def _step(replica: ReplicaStatus) -> str | None:
    """What a start is doing."""
    phase = next(reversed(replica.phases), None)
    if phase is None:
        return None
    detail = (replica.step or "").removeprefix(phase).removeprefix(": ")
    return phase_said(phase) + (f" ({first_line(detail)})" if detail else "")


def _until_the_next_try(answer: Why, clock: Clock) -> Iterator[str]:
    model = answer.model
    if model.state == "unavailable":
        yield "Requests for it are answered with an error as long as that holds."
    if model.retry_at is not None and model.retry_at > answer.now:
        wait = lasting(model.retry_at - answer.now)
        is_wanted = model.waiting or model.min or model.wish == "loaded"
        when = "" if is_wanted else ", when a request asks for it"
        yield f"It is tried again at {clock(model.retry_at)}, in {wait}{when}."
    elif model.retry_at is not None:
        yield "The next request for it is a new try."


def _until_it_starts(answer: Why) -> Iterator[str]:
    model = answer.model
    if not model.waiting and model.wish != "loaded" and not model.min:
        yield "The next request for it starts it."
        yield from _took_before(answer)
        return
    yield from _waits_for_memory(answer)
    yield from _took_before(answer)


def _waits_for_memory(answer: Why) -> Iterator[str]:
    needed, free = answer.model.memory_bytes, answer.free_bytes
    if needed is None:
        yield "How much memory it needs is still being found out."
        return
    if free is None or needed <= free:
        yield "There is memory for it, so it is about to be started."
        return
    yield f"It waits for memory: it needs {format_bytes(needed)}, and {format_bytes(max(0, free))} are free."
    others = sorted(answer.others, key=lambda replica: -replica.memory_bytes)
    for replica in others[:_HOLDERS_SHOWN]:
        yield f"{format_bytes(replica.memory_bytes)} are held by {replica.model}{_how(replica, answer.kept)}."
    if len(others) > _HOLDERS_SHOWN:
        yield f"The rest is held by {counted(len(others) - _HOLDERS_SHOWN, 'other replica')}."
    yield (
        "What is idle makes room once as many requests wait here as would miss it. What is busy does so once a "
        f"request has waited for {lasting(PATIENCE_S)}, and once it has served for {TURN:.0f} times as long as its "
        "own start took."
    )


def _how(replica: ReplicaStatus, kept: Sequence[str]) -> str:
    busy = f" with {counted(replica.in_flight, 'request')} in progress" if replica.in_flight else ""
    match replica.state:
        case "draining":
            left = f" ({replica.in_flight} left)" if replica.in_flight else ""
            return f", which goes as soon as its requests are answered{left}"
        case "stopping" | "failed":
            return ", which is on its way out"
        case "starting":
            return ", which is starting"
    if replica.model in kept:
        return ", which is kept loaded"
    return f", which is running{busy}" if busy else ", which is idle"


def _took_before(answer: Why) -> Iterator[str]:
    took = last_start_s(answer)
    if took is not None:
        yield f"Its last start took {lasting(took)}."

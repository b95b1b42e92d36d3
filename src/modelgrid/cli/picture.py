"""The picture that `status` shows: what is served where, one table of models with their replicas, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelgrid.cli import screen
from modelgrid.spec import ModelStatus, ReplicaStatus, Status
from modelgrid.spec.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_COLUMNS = ("MODEL", "ENGINE", "STATE", "MEMORY", "IN FLIGHT", "WAITING", "USED/SINCE", "WHY")
_NUMBERS = ("MEMORY", "IN FLIGHT", "WAITING", "USED/SINCE")
_BAR_CELLS = 24


def picture(status: Status, *, bar: bool) -> list[RenderableType]:
    """The parts of the picture, from top to bottom. `bar` draws memory as well as telling it."""
    return [
        _address(status),
        _memory(status, bar),
        *_problems(status),
        "",
        screen.table(_COLUMNS, _rows(status), right=_NUMBERS) if status.models else _no_models(),
    ]


def _address(status: Status) -> Text:
    workers = f"{status.workers} gateway worker{'' if status.workers == 1 else 's'}"
    up = f"up {screen.age(status.now - status.started)}"
    config = status.config or "the built-in default configuration"
    return screen.joined(screen.text(status.address, "bold"), f"  {workers}, {up}, {config}")


def _memory(status: Status, bar: bool) -> Text:
    planned, total = status.memory_planned_bytes, status.memory_bytes
    told = f"{_of(planned, total)} planned ({status.memory_source})"
    if not bar:
        return screen.text(f"memory {told}")
    full = min(_BAR_CELLS, round(_BAR_CELLS * planned / total)) if total else 0
    style = "green" if planned < 0.9 * total else "yellow"
    drawn = (screen.text("━" * full, style), screen.text("━" * (_BAR_CELLS - full), "bright_black"))
    return screen.joined("memory ", *drawn, f" {told}")


def _problems(status: Status) -> Iterator[Text]:
    if status.problem:
        yield screen.text(f"problem: {status.problem}", "bold red")
    if status.config_error:
        yield screen.text("the configuration can't be used; what is served is what it was before:", "bold red")
        yield screen.text(status.config_error, "red")
    if not status.workers:
        yield screen.text("problem: no gateway worker is connected, so no request is answered", "bold red")


def _no_models() -> Text:
    return screen.text("no models are configured (start with: modelgrid config init)")


def _rows(status: Status) -> Iterator[list[str | Text]]:
    known = {model.name for model in status.models}
    for model in status.models:
        yield _model(model, status.now)
        for replica in status.replicas:
            if replica.model == model.name:
                yield _replica(replica, status.now, indent="  ")
    for replica in status.replicas:
        if replica.model not in known:  # its model left the configuration; it is on its way out
            yield _replica(replica, status.now, indent="")


def _model(model: ModelStatus, now: float) -> list[str | Text]:
    return [
        screen.text(model.name, "bold"),
        model.engine,
        screen.state(model.state),
        "?" if model.memory_bytes is None else format_bytes(model.memory_bytes),
        _count(model.in_flight),
        str(model.waiting),
        f"{screen.age(now - model.last_used)} ago" if model.last_used else "never",
        "; ".join(_reasons(model, now)),
    ]


def _reasons(model: ModelStatus, now: float) -> Iterator[str]:
    if model.why:
        yield model.why
    if model.retry_at is not None:
        yield f"next try in {screen.age(model.retry_at - now)}"
    if model.wish and model.wish not in model.why:
        yield f"{model.wish} by hand"
    if model.note:
        yield model.note


def _replica(replica: ReplicaStatus, now: float, *, indent: str) -> list[str | Text]:
    resident = replica.resident_bytes
    return [
        f"{indent}{replica.id}",
        "",
        screen.state(replica.state),
        format_bytes(replica.memory_bytes) if resident is None else _of(resident, replica.memory_bytes),
        _count(replica.in_flight),
        "",
        screen.age(now - replica.since),
        replica.step or replica.why,
    ]


def _count(number: int | None) -> str:
    return "?" if number is None else str(number)


def _of(part: int, whole: int) -> str:
    """``3.1 of 18.7 GiB``: the unit once, where it is the same."""
    first, second = format_bytes(part), format_bytes(whole)
    same = first.split()[1] == second.split()[1]
    return f"{first.split()[0] if same else first} of {second}"

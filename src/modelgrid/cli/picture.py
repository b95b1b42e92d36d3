"""The picture that `status` shows: what is served where, one table of models with their replicas, and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgrid.cli import screen
from modelgrid.spec import MAIN, ModelStatus, ReplicaStatus, Status
from modelgrid.spec.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_ON = "ON"
_COLUMNS = ("MODEL", "ENGINE", "STATE", "MEMORY", _ON, "IN FLIGHT", "WAITING", "USED/SINCE", "WHY")
_NUMBERS = ("MEMORY", "IN FLIGHT", "WAITING", "USED/SINCE")
_BAR_CELLS = 24
_WHY_COLUMNS = 28  # at least, or it moves below the table


def picture(status: Status, *, columns: int | None) -> list[RenderableType]:
    """The parts of the picture, from top to bottom. `columns` is the terminal's width, None where there is none."""
    return [
        _address(status),
        _memory(status, has_bar=columns is not None),
        *_problems(status),
        "",
        *(_tables(list(_rows(status)), columns) if status.models else [_no_models()]),
    ]


def _tables(rows: list[_Row], columns: int | None) -> Iterator[RenderableType]:
    """One table; on a narrow terminal reasons stand below it, rather than in a column of single words."""
    names = tuple(name for name in _COLUMNS if name != _ON or any(row.on for row in rows))
    whole = [row.cells(names) for row in rows]
    without = screen.width_of(names[:-1], [cells[:-1] for cells in whole])
    if columns is None or columns - without >= _WHY_COLUMNS:
        yield screen.table(names, whole, right=_NUMBERS)
        return
    narrow = tuple(name for name in names if name not in ("ENGINE", "WHY"))
    yield screen.table(narrow, [row.cells(narrow) for row in rows], right=_NUMBERS)
    if reasons := [(row.name.strip(), row.why) for row in rows if row.why]:
        yield ""
        yield screen.table((_COLUMNS[0], "WHY"), reasons)


def _address(status: Status) -> Text:
    workers = f"{status.workers} gateway worker{'' if status.workers == 1 else 's'}"
    up = f"up {screen.age(status.now - status.started)}"
    config = status.config or "the built-in default configuration"
    return screen.joined(screen.text(status.address, "bold"), f"  {workers}, {up}, {config}")


def _memory(status: Status, *, has_bar: bool) -> Text:
    planned, total = status.memory_planned_bytes, status.memory_bytes
    told = f"{_of(planned, total)} planned ({status.memory_source})"
    if status.main_planned_bytes and status.main_bytes:
        told += f", {_of(status.main_planned_bytes, status.main_bytes)} of main memory"
    if not has_bar:
        return screen.text(f"memory {told}")
    full = min(_BAR_CELLS, round(_BAR_CELLS * planned / total)) if total else 0
    style = "green" if planned < 0.9 * total else "yellow"
    drawn = (screen.text("━" * full, style), screen.text("━" * (_BAR_CELLS - full), "bright_black"))
    return screen.joined("memory ", *drawn, f" {told}")


def _problems(status: Status) -> Iterator[Text]:
    if status.problem:
        yield screen.text(f"problem: {status.problem}", "bold red")
    if status.config_error:
        yield screen.text("the configuration file differs from what is served:", "bold red")
        yield screen.text(status.config_error, "red")
    if not status.workers:
        yield screen.text("problem: no gateway worker is connected, so no request is answered", "bold red")


def _no_models() -> Text:
    return screen.text("no models are configured (start with: modelgrid config init)")


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    engine: str
    state: str
    memory: str
    on: str  # the devices, where some are GPUs
    in_flight: str
    waiting: str
    time: str
    why: str

    def cells(self, columns: Sequence[str]) -> tuple[str | Text, ...]:
        name = screen.text(self.name, "bold" if self.engine else "")
        state = screen.state(self.state)
        cells: list[str | Text] = [
            name,
            self.engine,
            state,
            self.memory,
            self.on,
            self.in_flight,
            self.waiting,
            self.time,
            self.why,
        ]
        return tuple(cell for column, cell in zip(_COLUMNS, cells, strict=True) if column in columns)


def _rows(status: Status) -> Iterator[_Row]:
    known = {model.name for model in status.models}
    has_gpus = status.main_bytes is not None
    for model in status.models:
        yield _model(model, status.now)
        for replica in status.replicas:
            if replica.model == model.name:
                yield _replica(replica, status.now, has_gpus, indent="  ")
    for replica in status.replicas:
        if replica.model not in known:  # its model left the configuration; it is on its way out
            yield _replica(replica, status.now, has_gpus, indent="")


def _model(model: ModelStatus, now: float) -> _Row:
    if model.behind:  # what is counted is counted at the models behind it
        return _Row(model.name, model.engine, model.state, "", "", "", "", "", screen.brief(model.why))
    return _Row(
        name=model.name,
        engine=model.engine,
        state=model.state,
        memory=model.needs or ("?" if model.memory_bytes is None else _size(model.memory_bytes)),
        on="",
        in_flight=_counted(model.in_flight),
        waiting=str(model.waiting),
        time=_used(model, now),
        why="; ".join(_reasons(model, now)),
    )


def _counted(count: int | None) -> str:
    return "?" if count is None else str(count)


def _used(model: ModelStatus, now: float) -> str:
    if model.in_flight:
        return "now"
    return f"{screen.age(now - model.last_used)} ago" if model.last_used else "never"


def _reasons(model: ModelStatus, now: float) -> Iterator[str]:
    if model.why:
        yield screen.brief(model.why)
    if model.retry_at is not None:
        yield f"next try in {screen.age(model.retry_at - now)}"
    if model.wish and model.wish not in model.why:
        yield f"{model.wish} by hand"
    if model.note:
        yield model.note


def _replica(replica: ReplicaStatus, now: float, has_gpus: bool, *, indent: str) -> _Row:
    resident = replica.resident_bytes
    return _Row(
        name=f"{indent}{replica.id}",
        engine="",
        state=replica.state,
        memory=_size(replica.memory_bytes) if resident is None else _of(resident, replica.memory_bytes),
        on=" ".join("main" if name == MAIN else name for name in replica.devices) if has_gpus else "",
        in_flight=_counted(replica.in_flight),
        waiting="",
        time=screen.age(now - replica.since),
        why=screen.brief(replica.step or replica.why),
    )


def _size(count: int) -> str:
    return format_bytes(count) if count else "-"


def _of(part: int, whole: int) -> str:
    """``3.1 of 18.7 GiB``: the unit once, where it is the same."""
    first, second = format_bytes(part), format_bytes(whole)
    same = first.split()[1] == second.split()[1]
    return f"{first.split()[0] if same else first} of {second}"

"""What `modelgrid model list` shows: the models, their state while modelgrid runs, and the weights on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure, NotRunningFailure
from modelgrid.spec.operations import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGE_EDITS,
    IMAGES,
    MODERATIONS,
    MUSIC,
    OPERATIONS,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VIDEOS,
)
from modelgrid.spec.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from modelgrid.config import Config
    from modelgrid.controller.measured import Measured
    from modelgrid.spec import Machine, ModelSpec, ModelStatus
    from modelgrid.weights import Held

_KINDS: Mapping[str, str] = {
    CHAT: "text",
    COMPLETIONS: "text",
    EMBEDDINGS: "embeddings",
    RERANK: "rerank",
    CLASSIFY: "classify",
    MODERATIONS: "classify",
    IMAGES: "images",
    IMAGE_EDITS: "images",
    SPEECH: "speech",
    TRANSCRIPTIONS: "transcription",
    TRANSLATIONS: "transcription",
    MUSIC: "music",
    VIDEOS: "video",
}
_COLUMNS = ("MODEL", "ENGINE", "KIND", "STATE", "DISK", "MEMORY", "ALIASES", "SOURCE")
_NUMBERS = ("DISK", "MEMORY")
_BELOW = ("ALIASES", "SOURCE")  # where the terminal is narrow
_SOURCE_COLUMNS = 36  # at least, or it moves below the table


@dataclass(frozen=True, slots=True)
class Listed:
    """One configured model. `state` is None while modelgrid doesn't run, or doesn't know the model yet."""

    name: str
    engine: str
    kinds: tuple[str, ...]  # text, images, …; empty: anything
    source: str | None
    aliases: tuple[str, ...]
    state: str | None
    is_here: bool | None  # None: it has no weights that could be
    weights_path: str | None = None
    weights_bytes: int | None = None  # on this disk, also where it isn't whole yet
    memory_bytes: int | None = None  # of one replica
    memory_basis: str | None = None  # configured, measured, estimated; None: nobody knows
    needs: str | None = None  # what one replica takes, where that is no number of bytes
    behind: tuple[str, ...] = ()  # the models behind a virtual one


@dataclass(frozen=True, slots=True)
class Unused:
    """Weights that were pulled, of which no configured model makes use."""

    source: str
    path: str
    size_bytes: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """Models and weights."""

    models: tuple[Listed, ...]
    unused: tuple[Unused, ...]
    folder: str  # of what is pulled
    held_bytes: int
    free_bytes: int


def inventory(named: Path | None) -> Inventory:
    """What is configured in `named` (None: where `serve` would look), and what is on the disk."""
    from modelgrid.hardware import measure_machine
    from modelgrid.weights import list_weights, parse_source

    config = ask.configuration(named)
    root = ask.weights_root(config)
    running = {model.name: model for model in _running()}
    try:
        found = list_weights(root)
    except OSError as error:
        raise Failure(f"cannot list {root}: {error.strerror}: {error.filename}") from error
    held = {weights.source: weights for weights in reversed(found)}
    machine = measure_machine(config.machine, None)
    measured = _measured()
    models = [_listed(spec, held, root, machine, measured, running.get(spec.name)) for spec in config.models]
    models += _virtual(config, {model.name: model for model in models}, running)
    used = {str(parse_source(spec.source) or "") for spec in config.models if spec.source}
    return Inventory(
        models=tuple(models),
        unused=tuple(
            Unused(one.source, str(one.path), one.size_bytes, one.is_whole) for one in found if one.source not in used
        ),
        folder=str(root),
        held_bytes=sum(one.size_bytes for one in found),
        free_bytes=shutil.disk_usage(next(at for at in (root, *root.parents) if at.exists())).free,
    )


def inventory_tables(found: Inventory, columns: int | None) -> Iterator[RenderableType]:
    """All of it. `columns` is the terminal's width, None where there is none."""
    if found.models:
        yield from _models(found.models, columns)
    else:
        yield screen.text("no models are configured (start with: modelgrid config init)")
    if found.unused:
        yield ""
        yield screen.text("pulled, and used by no model (free the disk: modelgrid model remove SOURCE)")
        rows = [(one.source, _part(one.size_bytes, one.is_whole), one.path) for one in found.unused]
        yield screen.table(("SOURCE", "DISK", "PATH"), rows, right=("DISK",))
    yield ""
    told = f"{format_bytes(found.held_bytes)} pulled, {format_bytes(found.free_bytes)} free, in {found.folder}"
    yield screen.text(told, "dim")


def _models(models: Sequence[Listed], columns: int | None) -> Iterator[RenderableType]:
    """One table; on a narrow terminal aliases, and then sources, stand below it, rather than in pieces."""
    names = tuple(name for name in _COLUMNS if name != "ALIASES" or any(model.aliases for model in models))
    shown = next((kept for kept in _narrower(names) if columns is None or _fits(models, kept, columns)), names)
    yield screen.table(shown, [_cells(model, shown) for model in models], right=_NUMBERS)
    if below := [name for name in names if name not in shown]:
        yield ""
        rows = [_cells(model, ("MODEL", *below)) for model in models if _has(model, below)]
        yield screen.table(("MODEL", *below), rows)


def _narrower(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for left_out in ((), ("ALIASES",), _BELOW):
        yield tuple(name for name in names if name not in left_out)


def _fits(models: Sequence[Listed], names: Sequence[str], columns: int) -> bool:
    """The last column may take several lines, where it is left a few words' room."""
    if names[-1] != _COLUMNS[-1]:
        return True
    whole = [_cells(model, names) for model in models]
    without = screen.width_of(names[:-1], [cells[:-1] for cells in whole])
    return min(screen.width_of(names, whole), without + 2 + _SOURCE_COLUMNS) <= columns


def _has(model: Listed, names: Sequence[str]) -> bool:
    return bool(("ALIASES" in names and model.aliases) or ("SOURCE" in names and (model.source or model.behind)))


def _cells(model: Listed, columns: Sequence[str]) -> tuple[str | Text, ...]:
    cells: dict[str, str | Text] = {
        "MODEL": screen.text(model.name, "bold"),
        "ENGINE": model.engine,
        "KIND": ", ".join(model.kinds) or "any",
        "STATE": screen.state(model.state or "-"),
        "DISK": _disk(model),
        "MEMORY": _memory(model),
        "ALIASES": ", ".join(model.aliases) or "-",
        "SOURCE": model.source or ", ".join(model.behind) or "-",
    }
    return tuple(cells[name] for name in columns)


def _disk(model: Listed) -> str | Text:
    if model.is_here is None:
        return "-"
    if model.weights_bytes is None:
        is_path = (model.source or "").startswith("/")
        return screen.text("no weights" if model.is_here else "missing" if is_path else "not pulled", "yellow")
    return _part(model.weights_bytes, model.is_here)


def _part(size_bytes: int, is_whole: bool) -> str | Text:
    return format_bytes(size_bytes) if is_whole else screen.text(f"{format_bytes(size_bytes)} begun", "yellow")


def _memory(model: Listed) -> str:
    if model.memory_bytes is None:
        return model.needs or "?"
    if not model.memory_bytes:  # of another machine, or of none
        return "-"
    return f"{'~' if model.memory_basis == 'estimated' else ''}{format_bytes(model.memory_bytes)}"


def _listed(
    spec: ModelSpec,
    held: Mapping[str, Held],
    root: Path,
    machine: Machine,
    measured: Measured,
    status: ModelStatus | None,
) -> Listed:
    from modelgrid.controller.needs import accelerator, sized
    from modelgrid.controller.sizes import has_weights
    from modelgrid.engines import ENGINES
    from modelgrid.spec import Unknown
    from modelgrid.spec.weights import Weights
    from modelgrid.weights import needs_pull, parse_source, weigh_held

    has_any = has_weights(spec)
    weights = weigh_held(spec.source or "", root) if has_any else Weights(0)
    wanted = parse_source(spec.source) if has_any and spec.source else None
    begun = held.get(str(wanted)) if wanted else None
    is_path = has_any and (spec.source or "").startswith("/")
    need = sized(spec, machine, weights or Unknown("it isn't here"), measured.peak(spec, accelerator(spec, machine)))
    known = None if isinstance(need, Unknown) else need
    size_bytes = begun.size_bytes if begun else weights.size_bytes if is_path and isinstance(weights, Weights) else None
    path = str(begun.path) if begun else spec.source if size_bytes is not None else None
    return Listed(
        name=spec.name,
        engine=spec.engine,
        kinds=_kinds(ENGINES[spec.engine].operations(spec), spec.type),
        source=spec.source,
        aliases=spec.aliases,
        state=status.state if status else None,
        is_here=not needs_pull(spec.source or "", root) if wanted or is_path else None,
        weights_path=path,
        weights_bytes=size_bytes,
        memory_bytes=status.memory_bytes if status else known.need.memory_bytes if known else None,
        memory_basis=known.basis if known else None,
        needs=status.needs if status else f"{known.need.gpus:g} GPUs" if known and known.need.gpus else None,
    )


def _kinds(operations: Iterable[str], kind: str | None) -> tuple[str, ...]:
    """What it makes, in words; none of what can be anything."""
    served = tuple(operations)
    if set(served) >= set(OPERATIONS):
        return ()
    words = [_KINDS[operation] for operation in served if operation in _KINDS]
    return tuple(dict.fromkeys([*(["vision"] if kind == "vision" else []), *words]))


def _virtual(config: Config, models: Mapping[str, Listed], running: Mapping[str, ModelStatus]) -> Iterator[Listed]:
    for virtual in config.virtual:
        status = running.get(virtual.name)
        kinds = [models[name].kinds for name in virtual.models if name in models]
        yield Listed(
            name=virtual.name,
            engine="virtual",
            kinds=tuple(dict.fromkeys(kind for made in kinds for kind in made)) if all(kinds) else (),
            source=None,
            aliases=virtual.aliases,
            state=status.state if status else None,
            is_here=None,
            memory_bytes=0,
            behind=virtual.models,
        )


def _measured() -> Measured:
    """What earlier runs have shown; nothing, where the store can't be read."""
    from modelgrid.controller.measured import Measured

    try:
        with ask.store() as store:
            return Measured(store.runs())
    except Failure:
        return Measured(())


def _running() -> tuple[ModelStatus, ...]:
    try:
        with ask.daemon() as client:
            return client.status().models
    except NotRunningFailure:
        return ()

"""What `modelgrid model list` shows: the models, their state while modelgrid runs, and the weights on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure, NotRunningFailure
from modelgrid.spec.units import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from modelgrid.spec import ModelStatus


@dataclass(frozen=True, slots=True)
class Listed:
    """One configured model. `state` is None while modelgrid doesn't run, or doesn't know the model yet."""

    name: str
    engine: str
    source: str | None
    aliases: tuple[str, ...]
    state: str | None
    weights_path: str | None
    weights_bytes: int | None
    behind: tuple[str, ...] = ()  # the models behind a virtual one


@dataclass(frozen=True, slots=True)
class Unused:
    """Weights that were pulled, of which no configured model makes use."""

    source: str
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """Models and weights."""

    models: tuple[Listed, ...]
    unused: tuple[Unused, ...]


def inventory(named: Path | None) -> Inventory:
    """What is configured in `named` (None: where `serve` would look), and what is on the disk."""
    from modelgrid.weights import WeightsError, list_weights

    config = ask.configuration(named)
    states = {model.name: model.state for model in _running()}
    try:
        held = {weights.source: weights for weights in list_weights(ask.weights_root(config))}
    except WeightsError as error:
        raise Failure(str(error)) from error
    models = []
    for spec in config.models:
        weights = held.get(spec.source or "")
        models.append(
            Listed(
                name=spec.name,
                engine=spec.engine,
                source=spec.source,
                aliases=spec.aliases,
                state=states.get(spec.name),
                weights_path=str(weights.path) if weights else None,
                weights_bytes=weights.size_bytes if weights else None,
            )
        )
    models += [
        Listed(virtual.name, "virtual", None, virtual.aliases, states.get(virtual.name), None, None, virtual.models)
        for virtual in config.virtual
    ]
    used = {spec.source for spec in config.models}
    unused = [Unused(found.source, str(found.path), found.size_bytes) for found in held.values()]
    return Inventory(tuple(models), tuple(weights for weights in unused if weights.source not in used))


def inventory_table(found: Inventory) -> Table:
    """The models as a table."""
    rows = [
        (
            screen.text(listed.name, "bold"),
            listed.engine,
            screen.state(listed.state or "-"),
            "-" if listed.weights_bytes is None else format_bytes(listed.weights_bytes),
            ", ".join(listed.aliases) or "-",
            listed.source or ", ".join(listed.behind) or "-",
        )
        for listed in found.models
    ]
    return screen.table(("MODEL", "ENGINE", "STATE", "PULLED", "ALIASES", "SOURCE"), rows, right=("PULLED",))


def unused_table(found: Inventory) -> Table:
    """The weights that no model uses as a table."""
    rows = [(unused.source, format_bytes(unused.size_bytes), unused.path) for unused in found.unused]
    return screen.table(("SOURCE", "SIZE", "PATH"), rows, right=("SIZE",))


def _running() -> tuple[ModelStatus, ...]:
    try:
        with ask.daemon() as client:
            return client.status().models
    except NotRunningFailure:
        return ()

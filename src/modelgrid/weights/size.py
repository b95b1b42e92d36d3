"""How large a model's weights are, before they are loaded."""

from __future__ import annotations

from pathlib import Path

from modelgrid.spec import Unknown
from modelgrid.spec.source import PACKAGE, STAND_IN
from modelgrid.weights.choose import File, choose_files, weights_bytes
from modelgrid.weights.held import resolve
from modelgrid.weights.hub import list_files
from modelgrid.weights.source import WeightsError, hub_id

STAND_IN_BYTES = 3 << 20
PACKAGE_BYTES = 100 << 20  # an index takes no larger packages, unless it is asked to


def size_bytes(source: str, root: Path, timeout_s: float = 5.0) -> int | Unknown:
    """The size of the weights: of the files that are there, else as the hub tells it. Blocks at most a few times
    `timeout_s`, and only where the hub has to be asked."""
    if source == STAND_IN:
        return STAND_IN_BYTES
    if source.startswith(PACKAGE):
        return PACKAGE_BYTES
    path = resolve(source, root)
    if path is not None:
        return _local_bytes(path)
    if hub_id(source) is None:
        return Unknown(f"there is nothing at {source}")
    try:
        return weights_bytes(list_files(source, timeout_s).files)
    except WeightsError as error:
        return Unknown(str(error))


def _local_bytes(path: Path) -> int | Unknown:
    if path.is_file():
        return path.stat().st_size
    found = (file for file in sorted(path.rglob("*")) if file.is_file())
    files = [File(file.relative_to(path).as_posix(), file.stat().st_size) for file in found]
    return weights_bytes(choose_files(files)) or Unknown(f"{path} holds no weights")

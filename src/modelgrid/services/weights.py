"""Where a service finds its weights."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

PACKAGE = "package:"


def find_weights(model: str) -> str:
    """A path or an id as it is; ``package:NAME`` is the folder within that installed package."""
    if not model.startswith(PACKAGE):
        return model
    package = model.removeprefix(PACKAGE)
    files = importlib.metadata.files(package) or []
    for marker in ("modules.json", "model_index.json", "config.json"):
        found = [file for file in files if file.name == marker]
        if found:
            shallowest = min(found, key=lambda file: len(file.parts))
            return str(Path(str(shallowest.locate())).parent)
    raise FileNotFoundError(f"cannot find weights in the package {package}: it has no modules.json and no config.json")

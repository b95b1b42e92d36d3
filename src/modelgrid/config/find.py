"""Which file is the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelgrid.config.paths import LLM_CONFIG, PATH_VARIABLE, Paths
from modelgrid.config.problem import ConfigError, ConfigProblem


def find_config(paths: Paths, environ: Mapping[str, str], named: Path | None) -> Path | None:
    """``--config``, ``$MODELGRID_CONFIG``, ``./modelgrid.yaml``, the user's own; then ``$CONFIG_PATH`` where it names a
    JSON file, and ``./llm_config.json``; None: the embedded default.

    Raises ConfigError where a named file is not there.
    """
    if named is not None:
        return _must_exist(named, "--config")
    if variable := environ.get("MODELGRID_CONFIG"):
        return _must_exist(Path(variable), "environment MODELGRID_CONFIG")
    for candidate in (Path("modelgrid.yaml"), paths.config_file):
        if candidate.is_file():
            return candidate.absolute()
    variable = environ.get(PATH_VARIABLE, "")
    if variable.endswith(".json"):  # programs of others read a variable of this name as well
        return _must_exist(Path(variable), f"environment {PATH_VARIABLE}")
    return Path(LLM_CONFIG).absolute() if Path(LLM_CONFIG).is_file() else None


def _must_exist(path: Path, origin: str) -> Path:
    path = path.expanduser().absolute()
    if not path.exists():
        message = f"there is no file {path} (make one: modelgrid config init)"
        raise ConfigError([ConfigProblem(None, None, origin, message)], path)
    return path

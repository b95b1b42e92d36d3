"""The configuration: one file, one schema; every error at once, with its place.

Names are imported when first used: pydantic and PyYAML cost a tenth of a second, which `modelgrid --help` and
whoever only wants `modelgrid.config.paths` should not pay. No module may have the name of a function here: importing
it would put the module in the function's place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgrid.config.config import Config, CorsConfig, GatewayConfig, MachineConfig, StorageConfig, TlsConfig
    from modelgrid.config.default import default_text, starter_text
    from modelgrid.config.effective import show
    from modelgrid.config.fields import parse_gpus, schema
    from modelgrid.config.find import find_config
    from modelgrid.config.load import load_config, load_text
    from modelgrid.config.page import reference
    from modelgrid.config.problem import ConfigError, ConfigProblem

__all__ = [
    "Config",
    "ConfigError",
    "ConfigProblem",
    "CorsConfig",
    "GatewayConfig",
    "MachineConfig",
    "StorageConfig",
    "TlsConfig",
    "default_text",
    "find_config",
    "load_config",
    "load_text",
    "parse_gpus",
    "reference",
    "schema",
    "show",
    "starter_text",
]

_HOMES = {
    "Config": "config",
    "ConfigError": "problem",
    "ConfigProblem": "problem",
    "CorsConfig": "config",
    "GatewayConfig": "config",
    "MachineConfig": "config",
    "StorageConfig": "config",
    "TlsConfig": "config",
    "default_text": "default",
    "find_config": "find",
    "load_config": "load",
    "load_text": "load",
    "parse_gpus": "fields",
    "reference": "page",
    "schema": "fields",
    "show": "effective",
    "starter_text": "default",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

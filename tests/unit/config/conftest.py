"""A configuration from a text, and its problems as the lines that people read."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from modelgrid.config import Config, ConfigError, load_text

Load = Callable[..., Config]
Lines = Callable[..., list[str]]
NOTHING: Mapping[str, str] = {}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, environ: Mapping[str, str] = NOTHING, overrides: Mapping[str, str] = NOTHING) -> Config:
        path = tmp_path / "modelgrid.yaml"
        return load_text(textwrap.dedent(text), path=path, environ=environ, overrides=overrides)

    return load


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Lines:
    """The lines of the error that loading ends with, without the folder."""

    def problems(text: str, environ: Mapping[str, str] = NOTHING, overrides: Mapping[str, str] = NOTHING) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ, overrides)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n")

    return problems

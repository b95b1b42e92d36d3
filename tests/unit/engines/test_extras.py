"""The extras by which a service runs alone hold what its engine installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modelgrid.engines import ENGINES
from modelgrid.engines.pins import SERVICE
from modelgrid.engines.service import ServiceEngine

EXTRAS: dict[str, list[str]] = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
SERVICES = [engine for engine in ENGINES.values() if isinstance(engine, ServiceEngine)]


def asked(extra: str) -> dict[str, Requirement]:
    """What an extra asks for, with those that it names."""
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "modelgrid":
            for other in requirement.extras:
                found |= asked(other)
        else:
            found[requirement.name] = requirement
    return found


@pytest.mark.parametrize("engine", SERVICES, ids=lambda engine: engine.name)
def test_an_extra_allows_what_its_engine_pins(engine: ServiceEngine) -> None:
    extra = asked(engine.name)
    for pin in map(Requirement, (*engine.requirements, *SERVICE)):
        (exactly,) = pin.specifier
        assert pin.name in extra
        assert extra[pin.name].specifier.contains(exactly.version)

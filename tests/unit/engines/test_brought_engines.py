"""Engines that installed packages bring: found by their entry points, loaded when asked for, harmless when broken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelgrid.engines import Problem
from modelgrid.engines.custom import Custom
from modelgrid.engines.engine import Engine
from modelgrid.engines.registry import Engines
from modelgrid.engines.remote import Remote
from modelgrid.spec import ModelName, ModelSpec, ReplicaId
from modelgrid.spec.weights import Estimate, Weights
from packages import ENGINE, install
from places import on_cpu

OWN = (Custom(), Remote())
MODEL = ModelSpec(ModelName("m"), "shout", command=("serve", "{port}"), memory_bytes=1)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that are installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def problems(engine: Engine) -> list[Problem]:
    return engine.problems(MODEL)


def test_a_package_brings_an_engine(site: Path) -> None:
    install(site, "shout", {"shout_engine": ENGINE}, {"shout": "shout_engine:SHOUT"})
    engines = Engines(OWN)
    assert list(engines) == ["custom", "remote", "shout"]
    assert len(engines) == 3
    engine = engines["shout"]
    assert engine.summary == "shouts (of the package shout 1.0)"
    assert problems(engine) == []
    launch = engine.launch(MODEL, ReplicaId("m-1"), on_cpu(), None, "k")
    assert (launch.argv, launch.refusal) == (("serve", "{port}"), None)


def test_nothing_is_imported_until_its_engine_is_used(site: Path) -> None:
    install(site, "shout", {"shout_engine": ENGINE}, {"shout": "shout_engine:SHOUT"})
    engines = Engines(OWN)
    assert "shout" in engines
    assert "whisper" not in engines
    assert list(engines)[-1] == "shout"
    assert engines.refused == []
    assert engines["custom"] is OWN[0]
    assert "shout_engine" not in sys.modules
    assert engines["shout"] is engines["shout"]
    assert "shout_engine" in sys.modules


def test_packages_are_not_looked_for_where_an_engine_of_ours_is_asked_for() -> None:
    engines = Engines(OWN, lambda: pytest.fail("looked"))
    assert engines["remote"] is OWN[1]
    assert "custom" in engines


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("import no_such_library", "odd:SHOUT", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise SystemError('at import')", "odd:SHOUT", "SystemError: at import"),
        ("import sys; sys.exit('no licence')", "odd:SHOUT", "SystemExit: no licence"),
        ("", "odd:SHOUT", "AttributeError"),
        ("SHOUT = 5", "odd:SHOUT", "it lacks operations, problems, estimate, sleep, launch"),
        (ENGINE, "odd:Shout", "odd:Shout is a class"),
        (ENGINE.replace('name = "shout"', 'name = "other"'), "odd:SHOUT", "calls itself 'other'"),
        (ENGINE + "SHOUT.runtime = 'cloud'", "odd:SHOUT", "has no runtime of process and remote"),
    ],
)
def test_a_broken_one_is_a_problem_of_who_asks_for_it(site: Path, source: str, target: str, said: str) -> None:
    install(site, "odd", {"odd": source}, {"shout": target}, "2.5")
    engines = Engines(OWN)
    (problem,) = problems(engines["shout"])
    assert problem.field == "engine"
    assert said in problem.message
    assert "of the package odd 2.5" in problem.message
    launch = engines["shout"].launch(MODEL, ReplicaId("m-1"), on_cpu(), None, "k")
    assert launch.refusal == problem.message
    assert engines["custom"].problems(MODEL) == []


def test_an_engine_that_raises_harms_nobody_else(site: Path) -> None:
    methods = ("operations", "problems", "estimate", "sleep", "launch")
    raising = "\n".join(f"SHOUT.{method} = lambda *_: 1 / 0" for method in methods)
    install(site, "odd", {"odd": f"{ENGINE}\n{raising}"}, {"shout": "odd:SHOUT"})
    engine = Engines(OWN)["shout"]
    assert engine.operations(MODEL) == ()
    assert engine.estimate(MODEL, Weights(5), "cpu") == Estimate(())
    why = "shout, of the package odd 1.0, failed: ZeroDivisionError: division by zero (tell its authors)"
    assert problems(engine) == [Problem("engine", why)]
    assert engine.launch(MODEL, ReplicaId("m-1"), on_cpu(), None, "k").refusal == why


def test_a_name_of_ours_is_not_taken(site: Path) -> None:
    install(site, "odd", {"odd": ENGINE}, {"custom": "odd:SHOUT"})
    engines = Engines(OWN)
    assert list(engines) == ["custom", "remote"]
    assert engines["custom"] is OWN[0]
    assert engines.refused == [
        "engine custom of the package odd 1.0 is not used: modelgrid has one of that name"
        " (its package has to name it otherwise)"
    ]


def test_a_name_that_two_packages_bring_is_neithers(site: Path) -> None:
    install(site, "one", {"one": ENGINE}, {"shout": "one:SHOUT"})
    install(site, "two", {"two": ENGINE}, {"shout": "two:SHOUT"})
    engine = Engines(OWN)["shout"]
    (problem,) = problems(engine)
    assert problem.message == "shout comes from several packages, one 1.0, two 1.0 (uninstall all but one of them)"
    assert "one" not in sys.modules

"""Which engines there are: modelgrid's own, and those that installed packages bring by an entry point.

A package names an object that satisfies `Engine` in its pyproject.toml, under the name that `engine:` is to have::

    [project.entry-points."modelgrid.engines"]
    shout = "shout.engine:SHOUT"

Nothing of a package is imported until a model names its engine. What fails there fails that engine only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeVar

from modelgrid.engines.engine import Engine, Problem
from modelgrid.spec import Asleep, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.weights import Estimate, Weights

GROUP: Final = "modelgrid.engines"

_RUNTIMES: Final = ("process", "remote")
_METHODS: Final = ("operations", "problems", "estimate", "sleep", "launch")

T = TypeVar("T")


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


class Engines(Mapping[str, Engine]):
    """Engines by name. Packages are looked for once, when a name is asked for that isn't one of `own`."""

    def __init__(self, own: Iterable[Engine], installed: Callable[[], Iterable[EntryPoint]] = _installed) -> None:
        self.own: Mapping[str, Engine] = {engine.name: engine for engine in own}
        self._installed = installed
        self._loaded: dict[str, Engine] = {}

    def __getitem__(self, name: str) -> Engine:
        if name in self.own:
            return self.own[name]
        if name not in self._loaded:
            self._loaded[name] = _engine(name, self._entries[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self._entries

    def __len__(self) -> int:
        return len(self.own) + len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._entries  # as Mapping has it, it would load the engine

    @property
    def refused(self) -> list[str]:
        """Engines of packages that can't be had, as modelgrid has one of the same name."""
        return [
            f"engine {entry.name} of the package {_package(entry)} is not used: modelgrid has one of that name"
            " (its package has to name it otherwise)"
            for entry in self._found
            if entry.name in self.own
        ]

    @cached_property
    def _found(self) -> list[EntryPoint]:
        return sorted(self._installed(), key=lambda entry: (entry.name, _package(entry)))

    @cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        """What is brought under each name: by one package, unless something is wrong."""
        by_name: dict[str, list[EntryPoint]] = {}
        for entry in self._found:
            if entry.name not in self.own:
                by_name.setdefault(entry.name, []).append(entry)
        return by_name


class Brought:
    """An engine that a package brings. What its code raises becomes a problem of the model that asks for it, and no
    trouble of the others; `engine` is None where it could not even be had."""

    def __init__(self, name: str, package: str, engine: Engine | None, why: str = "") -> None:
        self.name = name
        self.runtime = engine.runtime if engine else "process"
        self.summary = f"{engine.summary if engine else 'cannot be used'} (of the package {package})"
        self._package = package
        self._engine = engine
        self._why = why

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return self._asked(lambda engine: engine.operations(model), lambda _: ())

    def problems(self, model: ModelSpec) -> list[Problem]:
        return self._asked(lambda engine: engine.problems(model), lambda why: [Problem("engine", why)])

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        return self._asked(lambda engine: engine.estimate(model, weights, accelerator), lambda _: Estimate(()))

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return self._asked(lambda engine: engine.sleep(model, need, weights_bytes, machine), lambda _: None)

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        def refused(why: str) -> Launch:
            return Launch(model.name, model.revision, model.name, argv=(self.name,), refusal=why)

        return self._asked(lambda engine: engine.launch(model, replica, place, weights, key), refused)

    def _asked(self, question: Callable[[Engine], T], without: Callable[[str], T]) -> T:
        if self._engine is None:
            return without(self._why)
        try:
            return question(self._engine)
        except (Exception, SystemExit) as error:  # whatever the code of others may raise
            said = f"{type(error).__name__}: {error}"
            return without(f"{self.name}, of the package {self._package}, failed: {said} (tell its authors)")


def _engine(name: str, entries: list[EntryPoint]) -> Engine:
    packages = [_package(entry) for entry in entries]
    if len(entries) > 1:
        step = "uninstall all but one of them"
        return Brought(name, packages[0], None, f"{name} comes from several packages, {', '.join(packages)} ({step})")
    try:
        found = entries[0].load()
    except (Exception, SystemExit) as error:  # an import runs whatever the package does
        why = f"cannot load {name} of the package {packages[0]}: {type(error).__name__}: {error}"
        return Brought(name, packages[0], None, f"{why} (upgrade or uninstall it)")
    if fault := _unfit(name, found):
        why = f"cannot use {name} of the package {packages[0]}: {entries[0].value} {fault}"
        return Brought(name, packages[0], None, f"{why} (tell its authors)")
    return Brought(name, packages[0], found)


def _unfit(name: str, found: object) -> str | None:
    """Why an object is no engine of that name."""
    if isinstance(found, type):
        return "is a class: the entry point has to name an object"
    if missing := [method for method in _METHODS if not callable(getattr(found, method, None))]:
        return f"is no engine: it lacks {', '.join(missing)}"
    if getattr(found, "name", None) != name:
        return f"calls itself {getattr(found, 'name', None)!r}"
    if getattr(found, "runtime", None) not in _RUNTIMES:
        return f"has no runtime of {' and '.join(_RUNTIMES)}"
    return None if isinstance(getattr(found, "summary", None), str) else "is no engine: it lacks summary"


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module

"""Engines that are services of ours: `modelgrid.services.NAME` in an environment of its own. Each is one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import on_torch
from modelgrid.engines.pins import SERVICE, TORCH
from modelgrid.engines.words import literal, literal_env
from modelgrid.spec import Asleep, EngineLoad, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.source import PACKAGE, STAND_IN
from modelgrid.spec.weights import Estimate, Weights

_BELONGING: Final = ("source", "args", "env", "requirements", "port", "served", "trust_remote_code")
_RUNNING: Final = "modelgrid_service_requests_running"
_WAITING: Final = "modelgrid_service_requests_waiting"
_RESERVED: Final = (("--host", "gateway.host"), ("--port", "port"), ("--name", "served"), ("--model", "source"))


@dataclass(frozen=True, slots=True)
class ServiceEngine:
    """A model server that is a subclass of `modelgrid.services.Service`.

    It is told its model, its name and its port by arguments and its key by the environment. Packages that bring
    a service of their own may use this class for it.
    """

    name: str  # as ``engine:`` names it
    module: str  # what ``python -m`` runs: "modelgrid.services.images"
    summary: str  # a line for people
    serves: tuple[str, ...]  # of modelgrid.spec.operations
    requirements: tuple[str, ...]  # pinned, beside torch and what every service needs
    overhead_bytes: int  # resident on a CPU beside its weights
    example: str  # a source that works
    torch: str | None = TORCH  # None: it computes without
    makes_stand_in: bool = True  # ``source: stand-in``
    packages: dict[str, str] = field(default_factory=dict)  # packages that carry weights, and versions that we know
    overrides: tuple[str, ...] = ()  # requirements that win over what packages ask for
    environment: str = ""  # the engine whose environment it shares, by equal requirements; its own where empty
    outlives: bool = False  # it works on after its requests are answered
    runtime: str = "process"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or self.serves

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, self.example, STAND_IN, PACKAGE) + strangers(model, *_BELONGING)
        if model.source == STAND_IN and not self.makes_stand_in:
            found.append(Problem("source", f"engine {self.name} has no {STAND_IN} (try {self.example})"))
        if (model.source or "").startswith(PACKAGE):
            found += self._problems_of_package((model.source or "").removeprefix(PACKAGE))
        return found + reserved(model, *_RESERVED)

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """Weights, a fifth of them for activations, and what runs without any."""
        return on_torch(weights, accelerator, self.overhead_bytes)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or model.name
        package = _package(model)
        source = f"{PACKAGE}{package}" if package else weights or model.source or ""
        argv = (
            *("{python}", "-P", "-m", self.module, "--model", literal(source)),
            *("--name", literal(served), "--host", "127.0.0.1", "--port", "{port}"),
            *("--grace", str(_grace_s(model))),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *map(literal, model.args),
        )
        env = {"HF_HUB_DISABLE_TELEMETRY": "1"}
        if weights or package or model.source == STAND_IN:
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env), "MODELGRID_ENGINE_KEY": key},
            environment=self._environment(model, place, package),
            port=model.port,
            key=key,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
            load=EngineLoad("/metrics", _RUNNING, _WAITING, outlives=self.outlives),
        )

    def _problems_of_package(self, named: str) -> list[Problem]:
        known = "".join(f" (try {PACKAGE}{name})" for name in self.packages)
        if not self.packages:
            said = f"{PACKAGE}{named}: engine {self.name} takes a hub id or a local path (try {self.example})"
            return [Problem("source", said)]
        return [] if named else [Problem("source", f"{PACKAGE} lacks a name{known}")]

    def _environment(self, model: ModelSpec, place: Place, package: str | None) -> Environment:
        carried: tuple[str, ...] = ()
        if package:
            named = (model.source or "").removeprefix(PACKAGE)
            known = self.packages.get(named)
            carried = (f"{named}=={known}" if known else named,)
        name = self.environment or self.name
        if model.requirements:
            return Environment(name, carried, requirements_file=model.requirements, links_modelgrid=True)
        torch = (place.machine.torch_wheel or self.torch) if self.torch else None
        requirements = (*self.requirements, *SERVICE, *carried)
        return Environment(name, requirements, torch=torch, overrides=self.overrides, links_modelgrid=True)


def _grace_s(model: ModelSpec) -> int:
    """For requests in flight at a stop: less than what the whole process has, so that it ends by itself."""
    return max(1, int(model.stop_grace_s) - 2)


def _package(model: ModelSpec) -> str | None:
    """The name of the package that carries the weights, without a version."""
    source = model.source or ""
    return source.removeprefix(PACKAGE).partition("==")[0] if source.startswith(PACKAGE) else None

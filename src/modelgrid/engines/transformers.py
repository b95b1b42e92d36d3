"""`transformers serve`: any text or vision model that transformers can load; starts in seconds, on CPUs too."""

from __future__ import annotations

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import on_torch
from modelgrid.engines.pins import TORCH
from modelgrid.engines.types import LISTENS
from modelgrid.engines.words import has_option, literal, literal_env
from modelgrid.spec import Asleep, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import CHAT, COMPLETIONS, RESPONSES, TRANSCRIPTIONS
from modelgrid.spec.source import STAND_IN
from modelgrid.spec.weights import Estimate, Weights

REQUIREMENTS = ("transformers[serving]==5.23.0", "accelerate==1.15.0", "pillow==13.0.0")
# Some models have no other way to read pictures. Its builds fit the torch of the package index: with a torch of another
# place it can't be imported, and what could do without it fails as well.
TORCHVISION = "torchvision==0.28.0"

OVERHEAD_BYTES = 3 << 28  # 415 MiB were resident with a model of 3 MB; the rest is for requests


VISION = "vision"


class Transformers:
    """`transformers serve`, pinned to one model, behind a door of ours (`modelgrid.services.transformers_serve`):
    by itself it opens any address and any picture that a caller names, and knows no keys."""

    name = "transformers"
    runtime = "process"
    summary = "text and vision models by transformers: widest choice, quick to start, on CPUs too"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        if model.operations:
            return model.operations
        return (TRANSCRIPTIONS,) if model.type in LISTENS else (CHAT, COMPLETIONS, RESPONSES)

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, "Qwen/Qwen2.5-0.5B-Instruct", STAND_IN)
        found += strangers(model, "source", "args", "env", "requirements", "port", "type", "trust_remote_code")
        if model.type not in (None, "text", "chat", VISION, *LISTENS):
            said = f"{model.type!r} is no type that it serves: there is text, vision, transcription"
            found.append(Problem("type", said))
        return found + reserved(model, ("--host", "gateway.host"), ("--port", "port"))

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """Weights, a fifth of them for activations, and what runs without any."""
        return on_torch(weights, accelerator, OVERHEAD_BYTES)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        made_here = model.source == STAND_IN
        cwd, served = (None, stand_in_name(model)) if made_here else _names(model.source or "", weights)
        argv = (
            *(stand_in_maker(model) if made_here else ()),
            *("{python}", "-P", "-m", "modelgrid.services.transformers_serve", literal(served)),
            *("--host", "127.0.0.1", "--port", "{port}"),
            *(("--device", "cpu") if place.accelerator == "cpu" and not has_option(model.args, "--device") else ()),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *map(literal, model.args),
        )
        env = {"HF_HUB_DISABLE_TELEMETRY": "1"}
        if weights or made_here:
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env), "MODELGRID_ENGINE_KEY": key},
            environment=_environment(model, place),
            cwd=cwd,
            port=model.port,
            key=key,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
        )


def stand_in_name(model: ModelSpec) -> str:
    """What the model is called that is made on the spot: the last part of its folder."""
    return f"{STAND_IN}-{VISION}" if model.type == VISION else STAND_IN


def stand_in_maker(model: ModelSpec) -> tuple[str, ...]:
    """What makes it and becomes the command that follows."""
    kind = ("--kind", VISION) if model.type == VISION else ()
    return ("{python}", "-P", "-m", "modelgrid.services.stand_in", *kind, "--")


def _names(source: str, weights: str | None) -> tuple[str | None, str]:
    """Where to start it, and what to call the model there. It is known by the path that it was given and tells that
    path in every answer: relative to the right folder, that is the hub's id or the folder's name, not a home."""
    if weights is None:
        return None, source
    folder, _, last = weights.rstrip("/").rpartition("/")
    if weights.endswith(f"/{source}"):
        return weights.removesuffix(f"/{source}") or "/", source
    return folder or "/", last


def _environment(model: ModelSpec, place: Place) -> Environment:
    if model.requirements:
        return Environment("transformers", requirements_file=model.requirements, links_modelgrid=True)
    torch = place.machine.torch_wheel
    requirements = REQUIREMENTS if torch else (*REQUIREMENTS, TORCHVISION)
    return Environment("transformers", requirements=requirements, torch=torch or TORCH, links_modelgrid=True)

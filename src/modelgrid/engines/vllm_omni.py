"""vLLM-Omni: models that make pictures, video and speech, or take and make several of them at once, on GPUs.

Read of vllm-omni 0.30.0, which belongs to vllm 0.30.0. A model is a pipeline of stages; which stage may take how much
of which GPU is told by its deploy configuration, and otherwise by `args`. Its sleep is told stage by stage, can't be
asked about, and a stage that thinks in words answers nothing after waking: it is stopped instead.

A chat makes it fetch no address, unless `args` allow domains. Pictures to edit and references for videos it fetches
from whatever address is named: keep callers who aren't trusted from those, or it from the network.
"""

from __future__ import annotations

from typing import Final

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import VLLM_MAIN_BYTES, on_torch
from modelgrid.engines.words import has_option, literal, literal_env
from modelgrid.spec import Asleep, EngineLoad, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import CHAT, IMAGE_EDITS, IMAGES, REALTIME, SPEECH, VIDEOS
from modelgrid.spec.weights import Estimate, Weights

VERSION: Final = "0.30.0"
LOAD: Final = EngineLoad(
    "/metrics", "vllm_omni:num_requests_running", "vllm_omni:num_requests_waiting", "vllm:kv_cache_usage_perc"
)

_OMNI: Final = "omni"
_BY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    _OMNI: (CHAT, SPEECH, REALTIME),
    "chat": (CHAT,),
    "text": (CHAT,),
    "vision": (CHAT,),
    "image": (IMAGES, IMAGE_EDITS, CHAT),
    "video": (VIDEOS,),
    "speech": (SPEECH,),
    "realtime": (REALTIME,),
}
_NO_DOMAIN: Final = "data-urls-only.invalid"  # an empty list would be all of them
_DIFFUSION: Final = frozenset({"image", "video"})  # one stage, which can be split over GPUs
_PARALLEL = ("--tensor-parallel-size", "-tp", "--num-gpus", "--usp", "--ring", "--use-hsdp", "--deploy-config")


class VllmOmni:
    """`vllm-omni serve --omni`."""

    name = "vllm-omni"
    runtime = "process"
    summary = "pictures, video, speech and models of several kinds at once by vLLM-Omni, on GPUs"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or _BY_TYPE[model.type if model.type in _BY_TYPE else _OMNI]

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, "Qwen/Qwen3-Omni-30B-A3B-Instruct")
        belonging = ("source", "args", "env", "requirements", "port", "served", "type", "trust_remote_code")
        found += strangers(model, *belonging)
        if model.type is not None and model.type not in _BY_TYPE:
            known = ", ".join(_BY_TYPE)
            found.append(Problem("type", f"{model.type!r} is no type that vLLM-Omni serves: there is {known}"))
        if model.gpus == 0:
            found.append(Problem("needs.gpus", "vLLM-Omni computes on GPUs only: remove it, or use another engine"))
        return found + reserved(
            model,
            ("--host", "gateway.host"),
            ("--port", "port"),
            ("--served-model-name", "served"),
            ("--api-key", "nothing: it has a key"),
        )

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """Weights, a fifth of them, and a context. A stage with a cache takes what its deploy configuration says."""
        return Estimate(on_torch(weights, "cuda", 0).parts, VLLM_MAIN_BYTES)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or model.name
        argv = (
            *("{bin}/vllm-omni", "serve", literal(weights or model.source or ""), "--omni"),
            *("--host", "127.0.0.1", "--port", "{port}", "--served-model-name", literal(served)),
            *(("--allowed-media-domains", _NO_DOMAIN) if not has_option(model.args, "--allowed-media-domains") else ()),
            *_over_gpus(model, place),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *map(literal, model.args),
        )
        env = {
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # to where no domain was allowed
        }
        if weights:
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env), "VLLM_API_KEY": key},
            environment=_environment(model),
            port=model.port,
            key=key,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served) if model.type not in _DIFFUSION else None,
            memory_bytes=model.memory_bytes or 0,
            load=LOAD,
            refusal=None if place.gpus else "vLLM-Omni computes on GPUs only (use an engine that has a build for CPUs)",
        )


def _over_gpus(model: ModelSpec, place: Place) -> tuple[str, ...]:
    if len(place.gpus) <= 1 or model.type not in _DIFFUSION or has_option(model.args, *_PARALLEL):
        return ()
    return ("--tensor-parallel-size", str(len(place.gpus)))


def _environment(model: ModelSpec) -> Environment:
    if model.requirements:
        return Environment("vllm-omni", requirements_file=model.requirements, links_modelgrid=True)
    pinned = (f"vllm=={VERSION}", f"vllm-omni=={VERSION}")
    return Environment("vllm-omni", requirements=pinned, links_modelgrid=True)

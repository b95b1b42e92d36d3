"""SGLang: high-throughput text, vision-language and embedding models, on NVIDIA GPUs.

Read of sglang 0.5.23. Its key could be given by an argument only, which the list of processes and its own log would
show: it gets none, as it listens on loopback. It can give memory back (`/release_memory_occupation`), but tells nobody
whether it has, and dies when it is told to wake twice: it is stopped instead of being put to sleep.

It fetches no address that a message names, unless `args` allow domains. Nothing keeps it from opening picture files of
its own machine that one names: where callers aren't trusted, give vision models to vllm or transformers.
"""

from __future__ import annotations

from typing import Final

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import on_vllm
from modelgrid.engines.words import has_option, literal, literal_env
from modelgrid.spec import Asleep, EngineLoad, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    MESSAGES,
    REALTIME,
    RERANK,
    RESPONSES,
    TOKENIZE,
    TRANSCRIPTIONS,
)
from modelgrid.spec.weights import Estimate, Part, Weights

VERSION: Final = "0.5.23"
LOAD: Final = EngineLoad("/metrics", "sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage")

# Weights and KV cache, of what is planned for it; activations and graphs come on top. On a GPU of 80 GiB it leaves 10
# of them for those by itself.
STATIC_SHARE: Final = 7 / 8

_TEXT = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS, TOKENIZE, DETOKENIZE)
_EMBED = (EMBEDDINGS, TOKENIZE, DETOKENIZE)
_RERANK = (RERANK, TOKENIZE, DETOKENIZE)

_BY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "text": _TEXT,
    "chat": _TEXT,
    "vision": _TEXT,
    "embedding": _EMBED,
    "embeddings": _EMBED,
    "rerank": _RERANK,
    "transcription": (TRANSCRIPTIONS, REALTIME),
}
# Left alone it fetches from all; an empty list is all as well. This one is none, and says what to do where it is shown.
_NO_DOMAIN: Final = "data-urls-only.invalid"
_POOLS: Final = frozenset({"embedding", "embeddings", "rerank"})
_PARALLEL = ("--tp-size", "--tensor-parallel-size", "--tp", "--pp-size", "--pipeline-parallel-size")


class Sglang:
    """`sglang serve`."""

    name = "sglang"
    runtime = "process"
    summary = "text and vision-language models by SGLang, on NVIDIA GPUs"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or _BY_TYPE[_type(model)]

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, "Qwen/Qwen2.5-7B-Instruct")
        belonging = ("source", "args", "env", "requirements", "port", "served", "type", "trust_remote_code")
        found += strangers(model, *belonging)
        if model.type is not None and model.type not in _BY_TYPE:
            known = ", ".join(_BY_TYPE)
            found.append(Problem("type", f"{model.type!r} is no type that SGLang serves: there is {known}"))
        if model.gpus == 0:
            found.append(Problem("needs.gpus", "SGLang computes on GPUs only: remove it, or use vllm or transformers"))
        return found + reserved(
            model,
            ("--host", "gateway.host"),
            ("--port", "port"),
            ("--model-path", "source"),
            ("--model", "source"),
            ("--served-model-name", "served"),
            ("--api-key", "nothing: the gateway asks for keys"),
        )

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """As vLLM, which keeps the same things; and what SGLang leaves beside weights and cache, where that is more."""
        beneath = on_vllm(model, weights, "cuda", 0)
        static_bytes = sum(part.memory_bytes for part in beneath.parts if part.what in ("weights", "KV cache"))
        missing_bytes = int(static_bytes / STATIC_SHARE) + 1 - beneath.memory_bytes
        room = (Part("room", missing_bytes, "an eighth is left beside weights and cache"),) if missing_bytes > 0 else ()
        return Estimate((*beneath.parts, *room), beneath.main_bytes, spreads=True, fills=True)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or model.name
        argv = (
            *("{bin}/sglang", "serve", "--model-path", literal(weights or model.source or "")),
            *("--host", "127.0.0.1", "--port", "{port}", "--served-model-name", literal(served), "--enable-metrics"),
            *(("--is-embedding",) if _type(model) in _POOLS and not has_option(model.args, "--is-embedding") else ()),
            *(("--allowed-media-domains", _NO_DOMAIN) if not has_option(model.args, "--allowed-media-domains") else ()),
            *_over_gpus(model, place),
            *_share_of_gpu(model, place),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *map(literal, model.args),
        )
        # Its health check would generate a token, at every look; a scheduler that hangs is ended by its own watchdog.
        env = {"HF_HUB_DISABLE_TELEMETRY": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"}
        if weights:
            env["HF_HUB_OFFLINE"] = "1"
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env)},
            environment=_environment(model),
            port=model.port,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
            load=LOAD,
            refusal=None if place.gpus else "SGLang computes on GPUs only (use engine: vllm, transformers or llamacpp)",
        )


def _type(model: ModelSpec) -> str:
    if model.type in _BY_TYPE:
        return model.type
    return "embedding" if has_option(model.args, "--is-embedding") else "text"


def _over_gpus(model: ModelSpec, place: Place) -> tuple[str, ...]:
    if len(place.gpus) <= 1 or has_option(model.args, *_PARALLEL):
        return ()
    return ("--tp-size", str(len(place.gpus)))


def _share_of_gpu(model: ModelSpec, place: Place) -> tuple[str, ...]:
    """It counts the share from what is free when it starts: on a GPU that others are on already it takes less than was
    planned for it, and never more."""
    if not place.gpus or has_option(model.args, "--mem-fraction-static"):
        return ()
    share = min(share.memory_bytes / gpu.total_bytes for gpu, share in place.on_gpus)
    return ("--mem-fraction-static", f"{min(1.0, share) * STATIC_SHARE:.3f}")


def _environment(model: ModelSpec) -> Environment:
    if model.requirements:
        return Environment("sglang", requirements_file=model.requirements, links_modelgrid=True)
    return Environment("sglang", requirements=(f"sglang=={VERSION}",), links_modelgrid=True)

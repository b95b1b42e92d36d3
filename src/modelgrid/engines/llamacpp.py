"""llama.cpp: GGUF files, on CPUs and GPUs, by its own server.

Read of the server's manual, and tried with its build b11549. `llama-server` is taken from the PATH, where it can be one
that was built for the machine. Without it xllamacpp serves, a wheel that carries the same server for CPUs, with fewer
options: `modelgrid.services.llama_server` decides. It would sleep only by itself, after a while without requests.

Pictures need `args: [--mmproj, FILE]`. With it, llama.cpp fetches every address that a message names; without, none.
"""

from __future__ import annotations

from typing import Final

from modelgrid.engines.checks import reserved, strangers, wrong_source
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import on_ggml
from modelgrid.engines.words import has_option, literal, literal_env, option
from modelgrid.spec import Asleep, EngineLoad, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    INFILL,
    MESSAGES,
    RERANK,
    RESPONSES,
    TOKENIZE,
)
from modelgrid.spec.source import STAND_IN
from modelgrid.spec.weights import Estimate, Weights

REQUIREMENTS: Final = ("xllamacpp==2026.10.11549",)
GGUF_REQUIREMENTS: Final = ("gguf==0.19.0",)  # what makes a stand-in
LOAD: Final = EngineLoad("/metrics", "llamacpp:requests_processing", "llamacpp:requests_deferred")

CONTEXT_TOKENS: Final = 8_192  # of all requests together; its own choice is the longest that the model can
PROMPT_CACHE_BYTES: Final = 1 << 29  # of main memory, for prompts that may come again; its own choice is 8 GiB

_TEXT = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS, INFILL, TOKENIZE, DETOKENIZE)
_EMBED = (EMBEDDINGS, TOKENIZE, DETOKENIZE)
_RERANK = (RERANK, TOKENIZE, DETOKENIZE)
_BY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "text": _TEXT,
    "chat": _TEXT,
    "vision": _TEXT,
    "embedding": _EMBED,
    "embeddings": _EMBED,
    "rerank": _RERANK,
}
_CONTEXT = ("--ctx-size", "-c")
_LAYERS = ("--n-gpu-layers", "--gpu-layers", "-ngl", "--fit", "-fit", "--device", "-dev")
_EMBEDDING = ("--embeddings", "--embedding")
_RERANKING = ("--reranking", "--rerank")
_ALL_LAYERS: Final = "999"  # "all" is younger


class Llamacpp:
    """`llama-server`."""

    name = "llamacpp"
    runtime = "process"
    summary = "GGUF files by llama.cpp, on CPUs and GPUs"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or _BY_TYPE[_type(model)]

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = wrong_source(model, "Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", STAND_IN)
        found += strangers(model, "source", "args", "env", "requirements", "port", "served", "type")
        if model.type is not None and model.type not in _BY_TYPE:
            known = ", ".join(_BY_TYPE)
            found.append(Problem("type", f"{model.type!r} is no type that llama.cpp serves: there is {known}"))
        if model.source == STAND_IN and _type(model) != "text":
            found.append(Problem("source", f"{STAND_IN} is a text model"))
        return found + reserved(
            model,
            ("--host", "gateway.host"),
            ("--port", "port"),
            ("--model", "source"),
            ("-m", "source"),
            ("--alias", "served"),
            ("-a", "served"),
            ("--api-key", "nothing: it has a key"),
        )

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        tokens = option(model.args, *_CONTEXT) or ""
        context = int(tokens) if tokens.isdecimal() and int(tokens) else CONTEXT_TOKENS
        return on_ggml(weights, accelerator, context, PROMPT_CACHE_BYTES)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or model.name
        argv = (
            *("{python}", "-P", "-m", "modelgrid.services.llama_server"),
            *("--model", literal(weights or model.source or ""), "--alias", literal(served)),
            *("--host", "127.0.0.1", "--port", "{port}", "--metrics"),
            *_for_type(model),
            *(("--ctx-size", str(CONTEXT_TOKENS)) if not has_option(model.args, *_CONTEXT) else ()),
            *(("--n-gpu-layers", _layers(place)) if not has_option(model.args, *_LAYERS) else ()),
            *map(literal, model.args),
        )
        env = {"LLAMA_ARG_CACHE_RAM": str(_prompt_cache_bytes(model) >> 20)}
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=argv,
            env={**env, **literal_env(model.env), "LLAMA_API_KEY": key},
            environment=_environment(model, place),
            port=model.port,
            key=key,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
            load=LOAD,
        )


def _type(model: ModelSpec) -> str:
    if model.type in _BY_TYPE:
        return model.type
    if has_option(model.args, *_RERANKING):
        return "rerank"
    return "embedding" if has_option(model.args, *_EMBEDDING) else "text"


def _for_type(model: ModelSpec) -> tuple[str, ...]:
    operations = _BY_TYPE[_type(model)]
    if operations is _EMBED and not has_option(model.args, *_EMBEDDING):
        return ("--embeddings",)
    if operations is _RERANK and not has_option(model.args, *_RERANKING):
        return ("--reranking",)
    return ()


def _layers(place: Place) -> str:
    """All or none: what is planned is for all of it. Over several GPUs it spreads its layers by itself."""
    return _ALL_LAYERS if place.gpus else "0"


def _prompt_cache_bytes(model: ModelSpec) -> int:
    return min(PROMPT_CACHE_BYTES, (model.memory_bytes or 0) // 8)


def _environment(model: ModelSpec, place: Place) -> Environment | None:
    """The wheel computes on CPUs: on a GPU `llama-server` has to be there, or requirements with another build."""
    made_here = GGUF_REQUIREMENTS if model.source == STAND_IN else ()
    if model.requirements:
        return Environment("llamacpp", made_here, requirements_file=model.requirements, links_modelgrid=True)
    wheel = REQUIREMENTS if not place.gpus else ()
    return Environment("llamacpp", (*wheel, *made_here), links_modelgrid=True) if wheel or made_here else None

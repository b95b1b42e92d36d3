"""Ollama: a program that has to be there already, serving one tag for each replica.

Read of its sources of August 2026. It asks for no key, and listens on loopback. It has no metrics of its load, and
unloads a model by itself unless told not to; modelgrid stops it instead. Of pictures it takes data URLs only.
"""

from __future__ import annotations

from typing import Final

from modelgrid.engines.checks import strangers
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.memory import on_ggml
from modelgrid.engines.words import literal, literal_env
from modelgrid.spec import Asleep, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from modelgrid.spec.source import OLLAMA, OllamaTag, parse_source
from modelgrid.spec.weights import Estimate, Weights

INSTALL: Final = "install Ollama, see ollama.com/download; engine: llamacpp serves GGUF files without it"
CONTEXT_TOKENS: Final = 8_192  # its own choice would go by the machine's GPUs, and up to 262,144

_EXAMPLE: Final = f"{OLLAMA}llama3.2:1b"
_TEXT = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
_BY_TYPE: Final[dict[str, tuple[str, ...]]] = {
    "text": _TEXT,
    "chat": _TEXT,
    "vision": _TEXT,
    "embedding": (EMBEDDINGS,),
    "embeddings": (EMBEDDINGS,),
}


class Ollama:
    """`ollama serve`."""

    name = "ollama"
    runtime = "process"
    summary = "tags of Ollama's registry by Ollama, where it is installed"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or _BY_TYPE.get(model.type or "text", _TEXT)

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = strangers(model, "source", "env", "port", "type")
        source = model.source or ""
        if not source:
            found.append(Problem("source", f"is missing: name a tag, for example {_EXAMPLE}"))
        elif not isinstance(parse_source(source), OllamaTag):
            found.append(Problem("source", f"{source}: ollama takes a tag, for example {_EXAMPLE}"))
        if model.type is not None and model.type not in _BY_TYPE:
            known = ", ".join(_BY_TYPE)
            found.append(Problem("type", f"{model.type!r} is no type that Ollama serves: there is {known}"))
        return found

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """Ollama computes by ggml, as llama.cpp does."""
        tokens = model.env.get("OLLAMA_CONTEXT_LENGTH", "")
        return on_ggml(weights, accelerator, int(tokens) if tokens.isdecimal() else CONTEXT_TOKENS)

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = (model.source or "").removeprefix(OLLAMA)
        env = {
            "OLLAMA_HOST": "127.0.0.1:{port}",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_NOPRUNE": "1",  # what is being pulled into the same folder looks unused
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_CONTEXT_LENGTH": str(CONTEXT_TOKENS),
        }
        if weights:
            env["OLLAMA_MODELS"] = literal(weights)
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=("ollama", "serve"),
            env={**env, **literal_env(model.env)},
            port=model.port,
            health=model.health or "/api/version",
            first_request=first_request(self.operations(model), served),
            memory_bytes=model.memory_bytes or 0,
            install=INSTALL,
        )

"""What a replica takes, by what is known of its weights. Pure; the figures say where they come from.

An estimate is used until the model has run once: then what it held is known (`modelgrid.controller.measured`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from modelgrid.engines.words import option
from modelgrid.spec import ModelSpec
from modelgrid.spec.units import format_bytes
from modelgrid.spec.weights import Estimate, Part, Shape, Weights

GIB: Final = 1 << 30

# Of a request with its answer: the mean, and what 99 of 100 stay below, in the conversations of Azure's trace of 2023.
USUAL_TOKENS: Final = 1_400
LONG_TOKENS: Final = 4_300

# A driver's context, its libraries' kernels and their workspace. vLLM's own profile calls it non-torch memory; half a
# GiB is common. A guess where nobody has measured it.
CONTEXT_BYTES: Final = 1 << 29
# Graphs of the sizes of batches that vLLM captures: it reports 0.3 to 1.0 GiB for models of 7 to 70 billion parameters.
GRAPHS_BYTES: Final = 1 << 30
# vLLM's defaults for a GPU of 70 GiB and more; smaller ones have 2,048 and 256. (vllm.engine.arg_utils, 0.32)
BATCHED_TOKENS: Final = 8_192
SEQUENCES: Final = 1_024

# Processes of vLLM without weights: 1.9 of the 2.9 GiB that were resident on a CPU with a model of 3 MB; as much again
# for what CUDA keeps of host memory.
VLLM_MAIN_BYTES: Final = 4 << 30
TORCH_MAIN_BYTES: Final = 3 << 29  # one process with torch's CUDA libraries: a guess

GGML_CACHE_BYTES: Final = GIB  # of a model whose shape isn't known
GGML_BUFFER_BYTES: Final = 1 << 28  # resident with a model of 3 MB: 40 MiB; the rest is for a batch of 2,048 tokens

_HALF: Final = 2  # bytes of a number, as vLLM loads what isn't quantised
_EIGHTH: Final = 1


def on_vllm(model: ModelSpec, weights: Weights, accelerator: str, overhead_bytes: int) -> Estimate:
    """vLLM. On a CPU its cache is a whole number of GiB (`cpu_cache_bytes`), and the rest as it was seen there."""
    if accelerator == "cpu":
        loaded = Part("weights", weights.size_bytes, _said(weights))
        spare = _a_fifth(weights)
        base_bytes = loaded.memory_bytes + spare.memory_bytes + overhead_bytes
        # An eighth of the whole is a seventh of the rest: what the launch will give it is in the estimate.
        cache = Part("KV cache", max(1, -(-base_bytes // (7 * GIB))) * GIB, "an eighth of all, in whole GiB")
        return Estimate((loaded, cache, spare, Part("engine", overhead_bytes)))
    width = 4 if _dtype(model.args) == "float32" else _HALF
    parts = (
        Part("weights", weights.loaded_bytes(width), _said(weights)),
        _cache(model, weights.shape, width),
        _activations(model.args, weights, width),
        Part("engine", CONTEXT_BYTES + GRAPHS_BYTES, "context and graphs"),
    )
    return Estimate(parts, VLLM_MAIN_BYTES, spreads=True, fills=True)


def on_torch(weights: Weights, accelerator: str, overhead_bytes: int) -> Estimate:
    """An engine of one process, which keeps the cache of one request at a time."""
    shape = weights.shape
    parts = [Part("weights", weights.size_bytes, _said(weights)), _a_fifth(weights)]
    if shape is not None and shape.cached:
        tokens = min(shape.longest or LONG_TOKENS, LONG_TOKENS)
        taken = shape.cached * tokens * _HALF + shape.cached_once * _HALF
        parts.append(Part("KV cache", taken, f"{tokens:,} tokens"))
    if accelerator == "cpu":
        return Estimate((*parts, Part("engine", overhead_bytes)))
    return Estimate((*parts, Part("engine", CONTEXT_BYTES, "context")), TORCH_MAIN_BYTES)


def on_ggml(weights: Weights, accelerator: str, context: int, prompt_cache_bytes: int = 0) -> Estimate:
    """llama.cpp, and Ollama: the files as they are, a cache for `context` tokens of all requests together, and buffers
    for a batch. `prompt_cache_bytes` are of main memory."""
    shape = weights.shape
    taken = 2 * (shape.cached * context + shape.cached_once) if shape is not None else GGML_CACHE_BYTES
    parts = (
        Part("weights", weights.size_bytes, _said(weights)),
        Part("KV cache", taken, f"{context:,} tokens" if shape is not None else "a guess: its shape isn't known"),
        Part("buffers", GGML_BUFFER_BYTES + weights.size_bytes // 20, "and a twentieth of the weights"),
    )
    if accelerator == "cpu":
        cache = (Part("prompt cache", prompt_cache_bytes),) if prompt_cache_bytes else ()
        return Estimate((*parts, *cache))
    return Estimate((*parts, Part("engine", CONTEXT_BYTES, "context")), GGML_BUFFER_BYTES + prompt_cache_bytes)


def cpu_cache_bytes(planned_bytes: int | None) -> int:
    """vLLM's cache on a CPU, in whole GiB: an eighth of what the model may take, and one at least."""
    return max(1, (planned_bytes or 0) // 8 // GIB) * GIB


def context_tokens(args: Sequence[str], shape: Shape) -> int | None:
    """The longest sequence that vLLM will take: what it was told, else what the model can. None: as many as fit."""
    written = option(args, "--max-model-len")
    if written in ("auto", "-1"):
        return None
    return parse_count(written) or shape.longest


def parse_count(text: str | None) -> int | None:
    """``8192``, ``8k`` (a thousand each), ``8K`` (1,024 each), as vLLM reads it; None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", text or "")
    if match is None:
        return None
    factors = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
    return int(float(match[1]) * factors[match[2]])


def _cache(model: ModelSpec, shape: Shape | None, width: int) -> Part:
    """For one sequence of full length, without which vLLM doesn't start, or for as many usual ones as a replica is to
    carry (`scaling.target`), if that is more."""
    if told := parse_count(option(model.args, "--kv-cache-memory-bytes")):
        return Part("KV cache", told, "--kv-cache-memory-bytes")
    if shape is None:
        return Part("KV cache", GIB, "a guess: its config.json isn't known")
    each = _EIGHTH if (option(model.args, "--kv-cache-dtype") or "").startswith("fp8") else width
    at_once = min(model.scaling.target, parse_count(option(model.args, "--max-num-seqs")) or SEQUENCES)
    longest = context_tokens(model.args, shape) or 0
    usual = at_once * min(USUAL_TOKENS, longest or USUAL_TOKENS)
    tokens = max(longest, usual)
    taken = (shape.cached * tokens + shape.cached_once * at_once) * each
    why = f"one sequence of {longest:,} tokens" if longest >= usual else f"{at_once} requests of {usual // at_once:,}"
    return Part("KV cache", taken, why)


def _activations(args: Sequence[str], weights: Weights, width: int) -> Part:
    """The widest layer for a full batch, and twice the scores of all words for each sequence, as 32-bit numbers."""
    shape = weights.shape
    if shape is None:
        return _a_fifth(weights)
    tokens = parse_count(option(args, "--max-num-batched-tokens")) or BATCHED_TOKENS
    sequences = parse_count(option(args, "--max-num-seqs")) or SEQUENCES
    taken = tokens * shape.wide * width + 2 * sequences * shape.vocabulary * 4
    return Part("activations", taken, f"{tokens:,} tokens in a batch")


def _a_fifth(weights: Weights) -> Part:
    return Part("activations", int(weights.size_bytes * 1.2) - weights.size_bytes, "a fifth of the weights")


def _said(weights: Weights) -> str:
    if not weights.count or weights.dtype is None:
        return f"{format_bytes(weights.size_bytes)} of files"
    amount = f"{weights.count / 1e9:.1f} billion" if weights.count >= 1e8 else f"{weights.count / 1e6:.1f} million"
    return f"{amount} parameters, {weights.dtype}"


def _dtype(args: Sequence[str]) -> str | None:
    return {"float": "float32"}.get(written := option(args, "--dtype") or "", written or None)

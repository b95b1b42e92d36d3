"""The shape of a model: from its config.json, or from what a GGUF file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgrid.spec.weights import Shape

_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def shape_of_config(config: Mapping[str, Any]) -> Shape | None:
    """None where it says too little. Layers whose kind isn't told are taken to look back over everything."""
    text = next((config[name] for name in ("text_config", "llm_config") if isinstance(config.get(name), dict)), config)
    layers = _first(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = _first(text, "num_attention_heads", "n_head")
    hidden = _first(text, "hidden_size", "n_embd", "d_model")
    if not layers or not heads or not hidden:
        return None
    full, windowed = _kinds(text, layers)
    each = _cached_in_a_layer(text, heads, hidden) if _generates(config) else 0
    window = _first(text, "sliding_window") or 0
    inner = _first(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    experts = (_first(text, "moe_intermediate_size") or 0) * (_first(text, "num_experts_per_tok") or 1)
    return Shape(
        cached=full * each,
        cached_once=windowed * each * window,
        longest=_first(text, "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
        wide=2 * max(inner, experts) + 4 * hidden,
        vocabulary=_first(text, "vocab_size") or 0,
    )


def shape_of_gguf(facts: Mapping[str, Any]) -> Shape | None:
    """None where it says too little."""
    kind = facts.get("general.architecture")
    layers = _first(facts, f"{kind}.block_count")
    heads = _first(facts, f"{kind}.attention.head_count")
    hidden = _first(facts, f"{kind}.embedding_length")
    if not layers or not heads or not hidden:
        return None
    written = facts.get(f"{kind}.attention.head_count_kv", heads)
    by_layer = written if isinstance(written, list) else [written] * layers
    keys = _first(facts, f"{kind}.attention.key_length") or hidden // heads
    values = _first(facts, f"{kind}.attention.value_length") or hidden // heads
    return Shape(
        cached=sum(by_layer) * (keys + values),
        longest=_first(facts, f"{kind}.context_length"),
        wide=2 * (_first(facts, f"{kind}.feed_forward_length") or 4 * hidden) + 4 * hidden,
        vocabulary=_first(facts, "tokenizer.ggml.tokens") or 0,
    )


def _kinds(text: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """How many layers look back over everything, and how many over a window. Others keep a state of one size."""
    kinds = text.get("layer_types")
    if not isinstance(kinds, list):
        return layers, 0
    return kinds.count("full_attention"), kinds.count("sliding_attention")


def _cached_in_a_layer(text: Mapping[str, Any], heads: int, hidden: int) -> int:
    if rank := _first(text, "kv_lora_rank"):  # latent attention (DeepSeek): one vector instead of keys and values
        return rank + (_first(text, "qk_rope_head_dim") or 0)
    kept = _first(text, "num_key_value_heads", "num_kv_heads") or (1 if text.get("multi_query") is True else heads)
    return 2 * kept * (_first(text, "head_dim") or hidden // heads)


def _generates(config: Mapping[str, Any]) -> bool:
    """Whether it makes tokens one after the other: an encoder caches nothing."""
    names = config.get("architectures")
    return not isinstance(names, list) or not names or any(str(name).endswith(_GENERATES) for name in names)


def _first(values: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is there and is a whole number above zero."""
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None

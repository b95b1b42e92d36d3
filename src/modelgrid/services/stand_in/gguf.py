"""A text model as a GGUF file, for llama.cpp: made with numpy and the gguf package alone."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

HIDDEN: Final = 128
FEED_FORWARD: Final = 256
LAYERS: Final = 2
HEADS: Final = 4
CONTEXT: Final = 8192
SEED: Final = 20261121
START, END, PAD = "<|start|>", "<|end|>", "<|pad|>"

# Besides the 256 bytes: words, each put together from its letters by a rule for each of them.
WORDS: Final = """
a the model one stands behind address when it and to is who asks need not know where runs how long took start what
had make room for first request wakes up last lets rest machine small models take turns good answer comes soon
says why engine reads words as numbers thinks of next writes down then does so again until there nothing more
"""

CHAT_TEMPLATE: Final = """\
{%- for message in messages -%}
<|start|>{{ message['role'] }}
{{ message['content'] }}<|end|>
{% endfor -%}
{%- if add_generation_prompt %}<|start|>assistant
{% endif -%}
"""


def make(folder: Path) -> None:
    """Write ``model.gguf`` into `folder`."""
    gguf: Any = importlib.import_module("gguf")
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    tokens, merges = _vocabulary()
    _describe(gguf, writer)
    _tokenizer(gguf, writer, tokens, merges)
    _tensors(writer, tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(gguf: Any, writer: Any) -> None:
    writer.add_name("stand-in")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _tokenizer(gguf: Any, writer: Any, tokens: list[str], merges: list[str]) -> None:
    special = (START, END, PAD)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(START))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(PAD))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(writer: Any, tokens: list[str]) -> None:
    """Random numbers; but two of the hidden state are kept free of chance, so that the last layer can prefer words, and
    an end after some of them, though not at the very beginning, which follows on a new line."""
    numpy: Any = importlib.import_module("numpy")
    dice = numpy.random.default_rng(SEED)

    def drawn(*shape: int, std: float) -> Any:
        return (dice.standard_normal(shape) * std).astype(numpy.float32)

    into = drawn(len(tokens), HIDDEN, std=1.0)
    out = drawn(len(tokens), HIDDEN, std=1.5 / HIDDEN**0.5)
    always, after_newline = 0, 1
    into[:, always], into[:, after_newline], out[:, [always, after_newline]] = 4.0, 0.0, 0.0
    into[tokens.index(_letters()[ord("\n")]), after_newline] = 4.0
    for number, token in enumerate(tokens):
        if token in (START, PAD) or len(token) == 1:
            out[number, always] = -5.0
    out[tokens.index(END)] = 0.0
    out[tokens.index(END), [always, after_newline]] = 0.8, -5.0
    writer.add_tensor("token_embd.weight", into)
    writer.add_tensor("output_norm.weight", numpy.ones(HIDDEN, numpy.float32))
    writer.add_tensor("output.weight", out)
    shapes = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (HIDDEN, HIDDEN)),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (FEED_FORWARD, HIDDEN)),
        "ffn_down": (HIDDEN, FEED_FORWARD),
    }
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", drawn(*shape, std=0.02))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(HIDDEN, numpy.float32))


def _vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and the rules that make them, as byte-level BPE writes both: a space is a letter of its own."""
    tokens, merges = _letters(), []
    space = _letters()[ord(" ")]
    for word in WORDS.split():
        made = space
        for letter in word:
            rule = f"{made} {letter}"
            made += letter
            if made not in tokens:
                tokens.append(made)
                merges.append(rule)
    return [*tokens, START, END, PAD], merges


def _letters() -> list[str]:
    """A printable letter for each byte: those that print stand for themselves, the rest follow from 256 on."""
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in prints else next(others)) for byte in range(256)]

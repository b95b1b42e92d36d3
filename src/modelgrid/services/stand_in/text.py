"""A text model of random weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

HIDDEN = 256
LAYERS = 2
HEADS = 4  # of 64 numbers each: vLLM's attention on CPUs refuses smaller ones
CONTEXT = 2048
VOCABULARY = 1024
SEED = 20261121
START, END, PAD = "<|start|>", "<|end|>", "<|pad|>"
SPACE, NEWLINE = "\u0120", "\u010a"  # as byte-level BPE writes them

# What the tokenizer learns its words from.
TEXT = """
A model stands behind one address, and the address stays when the model changes. Whoever asks it a question need
not know where it runs, how long it took to start, or what had to make room for it. The first request wakes it up;
the last one lets it rest. When the machine is small the models take turns, and when it is large they keep each
other company. One machine is enough to begin with, and a second is only a line in a file. A good answer comes soon,
and a bad one says why. The engine reads the words as numbers, thinks of the next one, and writes it down; then it
does so again, until there is nothing more to say. This particular model has learned nothing at all: its numbers
were drawn at random, and its sentences mean as much as rain on a window. It is here to show that everything around
it works: the road, the bridge and the lights. What goes over the road is up to you. Replace it by a real one when
you can, for then the answers will be worth reading. Hello, how are you today? I am well, thank you. What is the
capital of France? Who wrote this? Count to ten: one, two, three, four, five, six, seven, eight, nine, ten.
0 1 2 3 4 5 6 7 8 9 . , : ; ! ? ( ) [ ] { } " ' / - + = * # @ % & < >
def main(): return "hello"
"""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|end|>
{% endfor -%}
{%- if add_generation_prompt %}<|start|>assistant
{% endif -%}
"""


def make(folder: Path) -> None:
    """Write the model to `folder`."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizer = make_tokenizer(transformers)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(SEED)
    model = transformers.LlamaForCausalLM(config)
    _make_chatty(torch, model, tokenizer)
    model = model.to(torch.bfloat16)
    model.generation_config.do_sample = True
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _make_chatty(torch: Any, model: Any, tokenizer: Any) -> None:
    """Random numbers alone repeat one word for ever. Two numbers of the hidden state are kept free of chance, so that
    the last layer can prefer: ASCII words, and an end after some thirty of them, though not at the very beginning."""
    always, after_newline = 0, 1
    with torch.no_grad():
        words, out = model.model.embed_tokens.weight, model.lm_head.weight
        words.normal_(std=1.0)
        words[:, always] = 1.0
        words[:, after_newline] = 0.0
        out.normal_(std=1.5 / HIDDEN**0.5)
        out[:, [always, after_newline]] = 0.0
        for token, number in tokenizer.get_vocab().items():
            if token in (START, PAD) or not token.replace(SPACE, " ").isascii():
                out[number, always] = -20.0
        out[tokenizer.eos_token_id] = 0.0
        out[tokenizer.eos_token_id, always] = 4.3
        words[tokenizer.convert_tokens_to_ids(NEWLINE), after_newline] = 1.0  # the chat template ends with one
        out[tokenizer.eos_token_id, after_newline] = -20.0


def make_tokenizer(transformers: Any) -> Any:
    """Byte-level BPE: whatever is written can be read."""
    tokenizers: Any = importlib.import_module("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START, END, PAD],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=PAD, model_max_length=CONTEXT
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer

"""A cross-encoder of random weights: what it prefers means nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from modelgrid.services.stand_in.text import END, SEED, START, make_tokenizer

HIDDEN = 64
CONTEXT = 512


def make(folder: Path) -> None:
    """Write the model to `folder`."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizer = make_pair_tokenizer(transformers)
    torch.manual_seed(SEED)
    model = transformers.BertForSequenceClassification(make_config(transformers, tokenizer, num_labels=1))
    with torch.no_grad():
        # As it begins, all scores are nearly one.
        model.bert.embeddings.word_embeddings.weight.normal_(std=1.0)
        model.bert.pooler.dense.weight.normal_(std=HIDDEN**-0.5)
        model.classifier.weight.normal_(std=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_config(transformers: Any, tokenizer: Any, **more: Any) -> Any:
    """A small BERT."""
    return transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        pad_token_id=tokenizer.pad_token_id,
        **more,
    )


def make_pair_tokenizer(transformers: Any) -> Any:
    """One that puts marks around a text, and between two."""
    tokenizers: Any = importlib.import_module("tokenizers")
    tokenizer = make_tokenizer(transformers)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (START, END)]
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}", pair=f"{START} $A {END} $B:1 {END}:1", special_tokens=ids
    )
    tokenizer.model_max_length = CONTEXT
    tokenizer.chat_template = None
    return tokenizer

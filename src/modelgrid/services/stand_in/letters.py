"""A tokenizer that was taught nothing: a byte is a token. For stand-ins that read and don't write."""

from __future__ import annotations

import importlib
from typing import Any

PAD, START, END = "<pad>", "<start>", "<end>"


def tokenizer(limit: int) -> Any:
    """One that reads up to `limit` tokens, a start and an end among them."""
    transformers: Any = importlib.import_module("transformers")
    tokenizers: Any = importlib.import_module("tokenizers")
    letters = tokenizers.Tokenizer(tokenizers.models.BPE())
    letters.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    letters.train_from_iterator([], trainer)
    ends = [(mark, letters.token_to_id(mark)) for mark in (START, END)]
    letters.post_processor = tokenizers.processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token=PAD, bos_token=START, eos_token=END, model_max_length=limit
    )

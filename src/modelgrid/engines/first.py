"""First requests: the smallest real thing that an engine can be asked, by operation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from modelgrid.spec import FirstRequest
from modelgrid.spec.operations import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    MODERATIONS,
    PATHS,
    POOLING,
    RERANK,
    RESPONSES,
    SCORE,
)

# What costs a token or a vector. A picture or a song would cost a start minutes: there the health check has to do.
_CHEAP: Final[dict[str, dict[str, object]]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1},
    COMPLETIONS: {"prompt": "Hello", "max_tokens": 1},
    EMBEDDINGS: {"input": "Hello"},
    RERANK: {"query": "Hello", "documents": ["Hello"]},
    SCORE: {"text_1": "Hello", "text_2": "Hello"},
    CLASSIFY: {"input": "Hello"},
    POOLING: {"input": "Hello"},
    MODERATIONS: {"input": "Hello"},
    MESSAGES: {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1},
    RESPONSES: {"input": "Hello", "max_output_tokens": 16},  # fewer are refused
}


def first_request(operations: Iterable[str], served: str) -> FirstRequest | None:
    """The cheapest of `operations`, of the model that the engine knows as `served`; None where none is cheap."""
    known = set(operations)
    for operation, asked in _CHEAP.items():
        if operation in known:
            return FirstRequest(PATHS[operation][0], json.dumps({"model": served, **asked}).encode())
    return None

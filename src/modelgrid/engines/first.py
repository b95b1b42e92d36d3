"""First requests: the smallest real thing that an engine can be asked, by operation."""

from __future__ import annotations

import json

from modelgrid.spec import FirstRequest
from modelgrid.spec.operations import CHAT, COMPLETIONS, EMBEDDINGS

PATHS = {CHAT: "/v1/chat/completions", COMPLETIONS: "/v1/completions", EMBEDDINGS: "/v1/embeddings"}


def first_request(operation: str, served: str) -> FirstRequest:
    """One token, or one vector, of the model that the engine knows as `served`."""
    asked: dict[str, object]
    if operation == CHAT:
        asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    elif operation == COMPLETIONS:
        asked = {"prompt": "Hello", "max_tokens": 1}
    else:
        asked = {"input": "Hello"}
    return FirstRequest(PATHS[operation], json.dumps({"model": served, **asked}).encode())

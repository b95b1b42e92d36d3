"""What a model can be asked to do: the names by which engines, routes and the table of endpoints know it."""

from __future__ import annotations

from typing import Final

CHAT: Final = "chat"  # POST /v1/chat/completions, and the plain-text POST /v1/chat/{model}
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"

OPERATIONS: Final = (CHAT, COMPLETIONS, EMBEDDINGS)

"""What a model can be asked to do: the names by which engines, routes and the table of endpoints know it."""

from __future__ import annotations

from typing import Final

CHAT: Final = "chat"  # POST /v1/chat/completions, and the plain-text POST /v1/chat/{model}
COMPLETIONS: Final = "completions"
RESPONSES: Final = "responses"
MESSAGES: Final = "messages"  # Anthropic's
COUNT_TOKENS: Final = "count_tokens"
INFILL: Final = "infill"
EMBEDDINGS: Final = "embeddings"
RERANK: Final = "rerank"
SCORE: Final = "score"
CLASSIFY: Final = "classify"
POOLING: Final = "pooling"
MODERATIONS: Final = "moderations"
TOKENIZE: Final = "tokenize"
DETOKENIZE: Final = "detokenize"
IMAGES: Final = "images"
IMAGE_EDITS: Final = "image_edits"
IMAGE_VARIATIONS: Final = "image_variations"
SPEECH: Final = "speech"
TRANSCRIPTIONS: Final = "transcriptions"
TRANSLATIONS: Final = "translations"
VIDEOS: Final = "videos"
REALTIME: Final = "realtime"

OPERATIONS: Final = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    MESSAGES,
    COUNT_TOKENS,
    INFILL,
    EMBEDDINGS,
    RERANK,
    SCORE,
    CLASSIFY,
    POOLING,
    MODERATIONS,
    TOKENIZE,
    DETOKENIZE,
    IMAGES,
    IMAGE_EDITS,
    IMAGE_VARIATIONS,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VIDEOS,
    REALTIME,
)

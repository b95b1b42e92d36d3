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
MUSIC: Final = "music"
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
    MUSIC,
    VIDEOS,
    REALTIME,
)

# The paths at which engines serve an operation, the usual one first.
PATHS: Final[dict[str, tuple[str, ...]]] = {
    CHAT: ("/v1/chat/completions",),
    COMPLETIONS: ("/v1/completions",),
    RESPONSES: ("/v1/responses",),
    MESSAGES: ("/v1/messages",),
    COUNT_TOKENS: ("/v1/messages/count_tokens",),
    INFILL: ("/infill",),
    EMBEDDINGS: ("/v1/embeddings",),
    RERANK: ("/v1/rerank", "/rerank", "/v2/rerank"),
    SCORE: ("/v1/score", "/score"),
    CLASSIFY: ("/classify",),
    POOLING: ("/pooling",),
    MODERATIONS: ("/v1/moderations",),
    TOKENIZE: ("/tokenize",),
    DETOKENIZE: ("/detokenize",),
    IMAGES: ("/v1/images/generations",),
    IMAGE_EDITS: ("/v1/images/edits",),
    IMAGE_VARIATIONS: ("/v1/images/variations",),
    SPEECH: ("/v1/audio/speech",),
    TRANSCRIPTIONS: ("/v1/audio/transcriptions",),
    TRANSLATIONS: ("/v1/audio/translations",),
    MUSIC: ("/v1/audio/music",),
    VIDEOS: ("/v1/videos",),
    REALTIME: ("/v1/realtime",),
}


def operation_at(path: str) -> str | None:
    """The operation that is served at `path`; None where it is a path of an engine's own."""
    bare = path.rstrip("/")
    return next((operation for operation, paths in PATHS.items() if bare in paths), None)

"""Types of models: what a server of one is asked, where nobody has listed its operations."""

from __future__ import annotations

from typing import Final

from modelgrid.spec.operations import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    IMAGE_EDITS,
    IMAGE_VARIATIONS,
    IMAGES,
    INFILL,
    MESSAGES,
    MODERATIONS,
    MUSIC,
    POOLING,
    REALTIME,
    RERANK,
    RESPONSES,
    SCORE,
    SPEECH,
    TOKENIZE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VIDEOS,
)

_TEXT = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS, INFILL, TOKENIZE, DETOKENIZE)
_EMBEDDING = (EMBEDDINGS, RERANK, SCORE, POOLING, TOKENIZE, DETOKENIZE)
_RERANK = (RERANK, SCORE, CLASSIFY, POOLING, TOKENIZE, DETOKENIZE)
_IMAGE = (IMAGES, IMAGE_EDITS, IMAGE_VARIATIONS)
_OF_LISTENING = (TRANSCRIPTIONS, TRANSLATIONS, REALTIME)

TYPES: Final[dict[str, tuple[str, ...]]] = {
    "text": _TEXT,
    "chat": _TEXT,
    "vision": _TEXT,
    "completion": _TEXT,
    "embedding": _EMBEDDING,
    "embeddings": _EMBEDDING,
    "rerank": _RERANK,
    "score": _RERANK,
    "classify": (CLASSIFY, POOLING, TOKENIZE, DETOKENIZE),
    "pooling": (POOLING, TOKENIZE, DETOKENIZE),
    "moderation": (MODERATIONS,),
    "image": _IMAGE,
    "audio": (SPEECH, *_OF_LISTENING),
    "speech": (SPEECH,),
    "transcription": _OF_LISTENING,
    "realtime": (REALTIME,),
    "music": (MUSIC,),
    "video": (VIDEOS,),
}
LISTENS: Final = frozenset({"audio", "transcription"})  # types whose models turn speech into text

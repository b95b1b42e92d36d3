"""What is paid for beside the tokens that an engine told of: pictures, seconds, and tokens that nobody told of."""

from __future__ import annotations

from typing import Final

from modelgrid.gateway.accounts import Account
from modelgrid.gateway.usage import Usage, guess_input, guess_output, read_media_s
from modelgrid.gateway.usage_stream import PicturesOfAnswer, PicturesOfStream, UsageOfAnswer, UsageOfStream
from modelgrid.spec.operations import (
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGE_EDITS,
    IMAGE_VARIATIONS,
    IMAGES,
    INFILL,
    MESSAGES,
    MODERATIONS,
    POOLING,
    RERANK,
    RESPONSES,
    SCORE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VIDEOS,
)

PICTURES: Final = frozenset((IMAGES, IMAGE_EDITS, IMAGE_VARIATIONS))
_WRITES: Final = frozenset((CHAT, COMPLETIONS, RESPONSES, MESSAGES, INFILL))
_READS: Final = frozenset((EMBEDDINGS, RERANK, SCORE, CLASSIFY, POOLING, MODERATIONS))  # no tokens come out
_LASTS: Final = frozenset((TRANSCRIPTIONS, TRANSLATIONS, VIDEOS))


def usage_of_answer(operation: str) -> UsageOfAnswer:
    """What reads a JSON answer in parts."""
    return PicturesOfAnswer() if operation in PICTURES else UsageOfAnswer()


def usage_of_stream(operation: str) -> UsageOfStream:
    """What reads a stream."""
    return PicturesOfStream() if operation in PICTURES else UsageOfStream()


def pay_rest(
    account: Account, operation: str, heard: UsageOfAnswer | UsageOfStream, usage: Usage | None, body: bytes
) -> None:
    """Enter what an answer holds beside the tokens that it told, and where it told none, what they may have been.
    `body` is the request's."""
    if heard.images or (usage is not None and usage.media_s):
        account.make(heard.images, 0.0 if usage is None else usage.media_s)
    if usage is not None and not usage.is_estimated:
        return
    if operation in _WRITES:
        output = guess_output(heard.tail, heard.size) if isinstance(heard, UsageOfAnswer) else heard.events
        account.estimate(guess_input(body), output)
    elif operation in _READS:
        account.estimate(guess_input(body), 0)
    elif operation in _LASTS and isinstance(heard, UsageOfAnswer):
        account.make(0, read_media_s(heard.tail))

"""Counting tokens beside the computing: what is counted while a model computes is computed together next."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from modelgrid.services.errors import ServiceError

# A tokenizer takes some 180 bytes for each character, and reads all before it cuts: what no model could take is not
# shown to it, and what many texts have is counted in pieces.
CHARACTERS_A_TOKEN: Final = 64  # more than any vocabulary has in one
TOKENS_LIMIT: Final = 32_768  # of a model that names no limit, or none that means one
PIECE_CHARACTERS: Final = 1 << 20


def longest(limit: int | None) -> int:
    """Characters of a text, at most, for a model that takes so many tokens."""
    return min(limit or TOKENS_LIMIT, TOKENS_LIMIT) * CHARACTERS_A_TOKEN


class Tokens:
    """A model's tokenizer, in a thread of its own; a copy of it, because one tokenizer can't serve two threads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="count")

    async def count(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[int]:
        """Tokens of each text, or of each with its partner in `pairs`, with those that the model adds."""
        counts: list[int] = []
        for part in _parts(texts, pairs):
            counting = functools.partial(self._count, list(texts[part]), None if pairs is None else list(pairs[part]))
            counts += await asyncio.get_running_loop().run_in_executor(self._thread, counting)
        return counts

    async def text(self, tokens: Sequence[int]) -> str:
        """What tokens of the caller's say. Raises ServiceError where there are no such."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._text, list(tokens))

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def _count(self, texts: list[str], pairs: list[str] | None) -> list[int]:
        # Not cut to the model's length: a tokenizer that warns of long texts would do so once a process, and no more.
        both = (texts,) if pairs is None else (texts, pairs)
        return [len(ids) for ids in self._tokenizer(*both, truncation=False, verbose=False)["input_ids"]]

    def _text(self, tokens: list[int]) -> str:
        limit = len(self._tokenizer)
        if any(token >= limit or token < 0 for token in tokens):
            said = f"'input' holds tokens outside of this model's vocabulary of {limit}"
            raise ServiceError(400, said, param="input", code="invalid_value")
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def _parts(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[slice]:
    """Places of texts that have PIECE_CHARACTERS together, with their partners; one text is never too many."""
    start, held = 0, 0
    for end in range(len(texts)):
        size = len(texts[end]) + (len(pairs[end]) if pairs is not None else 0)
        if held and held + size > PIECE_CHARACTERS:
            yield slice(start, end)
            start, held = end, 0
        held += size
    if start < len(texts):
        yield slice(start, len(texts))

"""Text cut into sentences, each of which can be spoken by itself. Pure."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 300  # characters of a piece; a sentence of more is cut at the best place there is
SHORTEST: Final = 16  # fewer go with what follows: "No!" is no work for a turn of its own

# An end: its mark, what closes quotes and brackets, and space. The marks of scripts that write no spaces need none.
_ENDS: Final = re.compile(r"""(?<=[.!?…])["'”’»)\]]*\s+|(?<=[。！？｡])["'”’」』）]*\s*""")  # noqa: RUF001  marks, as they are
_NO_ENDS: Final = re.compile(r"\b(?:Mrs?|Ms|Dr|Prof|St|Mt|vs|approx|No|e\.g|i\.e|[A-HJ-Z])\.$")
_PAUSES: Final = re.compile(r"(?<=[,;:–—、，；：])\s*")  # noqa: RUF001
_WORDS: Final = re.compile(r"\s+")
_ANYWHERE: Final = re.compile("")
_PARAGRAPHS: Final = re.compile(r"\s*\n\s*\n\s*")


def sentences(text: str, longest: int = LONGEST, shortest: int = SHORTEST) -> list[str]:
    """The pieces of `text` in order, without what can't be pronounced; empty when nothing can."""
    pieces: list[str] = []
    for paragraph in _PARAGRAPHS.split(text):
        whole = _cut(_ENDS, _WORDS.sub(" ", paragraph))
        pieces += _join([part for sentence in whole for part in _shorten(sentence, longest)], longest, shortest)
    return [piece.strip() for piece in pieces if any(map(str.isalnum, piece))]


def _cut(where: re.Pattern[str], text: str) -> list[str]:
    """`text` cut behind every match."""
    ends = [match.end() for match in where.finditer(text) if not _NO_ENDS.search(text, *_before(match.start()))]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _before(end: int) -> tuple[int, int]:
    """As far back as the longest abbreviation, and what stands before it."""
    return max(0, end - 8), end


def _shorten(sentence: str, longest: int) -> list[str]:
    """Cut at pauses, else between words, else anywhere; as seldom as possible."""
    parts = [sentence]
    for where in (_PAUSES, _WORDS, _ANYWHERE):
        parts = [finer for part in parts for finer in ([part] if len(part.strip()) <= longest else _cut(where, part))]
    return _join(parts, longest, longest)


def _join(pieces: list[str], longest: int, shortest: int) -> list[str]:
    """Put those that are shorter than `shortest` together with the next one, while they fit."""
    joined: list[str] = []
    for piece in pieces:
        if joined and len(joined[-1]) < shortest and len((joined[-1] + piece).strip()) <= longest:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined

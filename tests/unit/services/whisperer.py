"""A model of faster-whisper's shape that says words by rule, and sound that is bytes: a second each."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from modelgrid.services.listening import NoSound
from modelgrid.services.service import Options
from modelgrid.services.transcription import Transcription

PIECE_S = 4


@dataclass
class Told:
    """What the library tells of a whole."""

    language: str = "fr"


@dataclass
class Word:
    start: float
    end: float
    word: str


@dataclass
class Heard:
    """A segment of the library's."""

    start: float
    end: float
    text: str
    words: list[Word] | None = None
    tokens: list[int] = field(default_factory=lambda: [7])
    seek: int = 3
    temperature: float | None = 0.2
    avg_logprob: float = -0.5
    compression_ratio: float = 1.5
    no_speech_prob: float = 0.1


class Extractor:
    sampling_rate = 1


class Model:
    """Says each second's byte, a quarter late; a segment lasts into the next, as models have it at times."""

    feature_extractor = Extractor()

    def __init__(self, languages: tuple[str, ...] = ("en", "fr", "de")) -> None:
        self.supported_languages = list(languages)
        self.calls: list[dict[str, Any]] = []
        self.gates: list[threading.Event] = []  # before each segment, where there is one

    def transcribe(self, piece: bytes, **settings: Any) -> tuple[Iterator[Heard], Told]:
        self.calls.append({"piece": piece, **settings})
        if b"!" in piece:
            raise RuntimeError("CUDA failed with error out of memory")
        return self._segments(piece, settings["word_timestamps"]), Told()

    def _segments(self, piece: bytes, times_words: bool) -> Iterator[Heard]:
        for second, letter in enumerate(piece.decode()):
            if self.gates:
                assert self.gates.pop(0).wait(20)
            words = [Word(second, second + 0.5, f" {letter}"), Word(second + 0.5, second + 9, " so")]
            text = "  " if letter == "_" else f" {letter} so"
            yield Heard(second + 0.25, second + 1.5, text, words if times_words else None)


def decode(file: BinaryIO) -> Generator[bytes]:
    sound = file.read()
    if not sound:
        raise NoSound("cannot hear the file: it is empty")
    for start in range(0, len(sound), PIECE_S):
        yield sound[start : start + PIECE_S]


class Ready(Transcription):
    """The service with such a model, as if it had been loaded."""

    def __init__(self, model: Model | None = None, options: Options | None = None) -> None:
        super().__init__(options or Options(name="mini"))
        self.model = model or Model()

    def load(self) -> None:
        self.take(self.model, decode)

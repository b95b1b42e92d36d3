"""What was heard, and the shapes that it is told in: text, JSON, SubRip and WebVTT, events of a stream. Pure."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from modelgrid.services.languages import NAMES

LEAST_S: Final = 0.001  # that a cue is shown: WebVTT has none that end as they begin


class Task(StrEnum):
    """What is done with what is heard."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"  # into English


class Format(StrEnum):
    """The shapes of an answer, by OpenAI's names."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VERBOSE_JSON = "verbose_json"
    VTT = "vtt"


class Granularity(StrEnum):
    """What times are told of."""

    SEGMENT = "segment"
    WORD = "word"


@dataclass(frozen=True, slots=True)
class Word:
    """One word; times are from the sound's beginning."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or a part of one. Its text begins with the space that parts it from what was said before."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    seek: int = 0  # where the window began that it was heard in, in hundredths of a second
    temperature: float = 0.0
    average_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """All that was heard, in order."""

    segments: tuple[Segment, ...]
    duration_s: float
    language: str  # Whisper's code
    task: Task = Task.TRANSCRIBE

    @property
    def text(self) -> str:
        """Without times."""
        return "".join(segment.text for segment in self.segments).strip()


def placed(segment: Segment, earliest_s: float, latest_s: float) -> Segment:
    """`segment` and its words in order, within the sound and not before the last one's end: models overshoot."""
    start_s, end_s = _within(segment.start_s, segment.end_s, earliest_s, latest_s)
    words, reached_s = [], start_s
    for word in segment.words:
        begin_s, reached_s = _within(word.start_s, word.end_s, reached_s, latest_s)
        words.append(dataclasses.replace(word, start_s=begin_s, end_s=reached_s))
    return dataclasses.replace(segment, start_s=start_s, end_s=max(end_s, reached_s), words=tuple(words))


def srt(segments: Iterable[Segment]) -> str:
    """SubRip."""
    return "\n".join(
        f"{number}\n{_clock(start_ms, ',')} --> {_clock(end_ms, ',')}\n{text.replace('-->', '->')}\n"
        for number, (start_ms, end_ms, text) in enumerate(_cues(segments), 1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT."""
    cues = (
        f"{_clock(start_ms, '.')} --> {_clock(end_ms, '.')}\n{html.escape(text, quote=False)}\n"
        for start_ms, end_ms, text in _cues(segments)
    )
    return "\n".join(("WEBVTT\n", *cues))


def brief(transcript: Transcript) -> dict[str, Any]:
    """``json``."""
    return {"text": transcript.text, "usage": usage(transcript)}


def verbose(transcript: Transcript, told: Iterable[Granularity]) -> dict[str, Any]:
    """``verbose_json``, with times of what is `told`: of segments, where nothing is."""
    granularities = set(told) or {Granularity.SEGMENT}
    answer: dict[str, Any] = {
        "task": transcript.task,
        # A translation is English, whatever was heard.
        "language": NAMES["en" if transcript.task is Task.TRANSLATE else transcript.language],
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
    }
    if Granularity.SEGMENT in granularities:
        answer["segments"] = [_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    if Granularity.WORD in granularities:
        answer["words"] = [_word(word) for segment in transcript.segments for word in segment.words]
    return answer | {"usage": usage(transcript)}


def usage(transcript: Transcript) -> dict[str, Any]:
    """What is counted: seconds that have begun."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration_s)}


def deltas(segments: Iterable[Segment]) -> Iterator[str]:
    """The text of each as it is found; put together, they are the transcript's text."""
    is_first = True
    for segment in segments:
        text = segment.text.lstrip() if is_first else segment.text
        is_first = is_first and not text
        yield text


def event(kind: str, **fields: object) -> bytes:
    """An event of a stream."""
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


def _within(start_s: float, end_s: float, earliest_s: float, latest_s: float) -> tuple[float, float]:
    start_s = max(earliest_s, min(start_s, latest_s))
    return start_s, max(start_s, min(end_s, latest_s))


def _cues(segments: Iterable[Segment]) -> Iterator[tuple[int, int, str]]:
    """Start and end in milliseconds, and text in one line; those without text are left out."""
    reached_ms = 0
    for segment in segments:
        text = " ".join(segment.text.split())
        if text:
            start_ms = max(reached_ms, round(segment.start_s * 1000))
            reached_ms = max(start_ms + round(LEAST_S * 1000), round(segment.end_s * 1000))
            yield start_ms, reached_ms, text


def _clock(at_ms: int, point: str) -> str:
    seconds, millis = divmod(at_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{millis:03}"


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": segment.seek,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.average_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_probability,
    }


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text.strip(), "start": round(word.start_s, 3), "end": round(word.end_s, 3)}

"""Shapes of transcripts: whatever a model says, what comes out is valid."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelgrid.services.languages import NAMES, code_of
from modelgrid.services.transcripts import (
    Granularity,
    Segment,
    Task,
    Transcript,
    Word,
    brief,
    deltas,
    event,
    placed,
    srt,
    verbose,
    vtt,
)

TIMES = st.floats(-10, 1e6, allow_nan=False)
TEXTS = st.one_of(
    st.text(max_size=40), st.sampled_from([" --> ", "\n\n", " a <b> & c", "1\n00:00:00,000 --> 1", " \u2028x"])
)
WORDS = st.builds(Word, TIMES, TIMES, TEXTS)
SEGMENTS = st.lists(st.builds(Segment, TIMES, TIMES, TEXTS, st.lists(WORDS, max_size=4).map(tuple)), max_size=8)

SRT = re.compile(r"(\d+)\n(\d\d+):(\d\d):(\d\d),(\d{3}) --> (\d\d+):(\d\d):(\d\d),(\d{3})\n(\S.*)\n")
VTT = re.compile(r"()(\d\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d\d+):(\d\d):(\d\d)\.(\d{3})\n([^<>\n]+)\n")

TWO = (
    Segment(0.0, 2.0, " Hello there.", (Word(0.0, 0.5, " Hello"), Word(0.5, 2.0, " there."))),
    Segment(2.0, 3723.5, " Tom & Jerry", (Word(2.0, 3723.5, " Tom"),), tokens=(5, 6), seek=12),
)


def cues(text: str, shape: re.Pattern[str]) -> list[tuple[int, int, str]]:
    """What a strict reader finds, block by block."""
    found = []
    for block in text.split("\n\n"):
        match = shape.fullmatch(f"{block.rstrip()}\n")
        assert match, block
        numbers = [int(part) for part in match.groups()[1:9]]
        start_ms, end_ms = (((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in (numbers[:4], numbers[4:]))
        found.append((start_ms, end_ms, match[10]))
    return found


def assert_in_order(found: list[tuple[int, int, str]]) -> None:
    assert all(start_ms < end_ms for start_ms, end_ms, _ in found)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))


@given(SEGMENTS)
def test_any_segments_make_valid_srt(segments: list[Segment]) -> None:
    text = srt(segments)
    spoken = [segment for segment in segments if segment.text.split()]
    found = cues(text, SRT) if text else []
    assert_in_order(found)
    assert len(found) == len(spoken)
    assert [int(number) for number in re.findall(r"(?:^|\n\n)(\d+)\n", text)] == [*range(1, len(found) + 1)]
    assert not any("-->" in cue for _, _, cue in found)


@given(SEGMENTS)
def test_any_segments_make_valid_vtt(segments: list[Segment]) -> None:
    head, _, rest = vtt(segments).partition("\n\n")
    assert head.rstrip() == "WEBVTT"
    assert_in_order(cues(rest, VTT) if rest.strip() else [])


@given(SEGMENTS, st.floats(0, 1000))
def test_whatever_was_heard_lies_in_order_within_the_sound(segments: list[Segment], duration_s: float) -> None:
    reached_s = 0.0
    for segment in segments:
        found = placed(segment, reached_s, duration_s)
        times = [found.start_s, *(at for word in found.words for at in (word.start_s, word.end_s)), found.end_s]
        assert times == sorted(times)
        assert reached_s <= times[0]
        assert times[-1] <= duration_s
        reached_s = found.end_s


@given(st.lists(st.text(max_size=10), max_size=6))
@example(["", " then"])
@example([" Hello", " there"])
def test_deltas_put_together_are_the_text(texts: list[str]) -> None:
    segments = [Segment(0, 1, text.rstrip()) for text in texts]
    assert "".join(deltas(segments)) == Transcript(tuple(segments), 1.0, "en").text


def test_srt_and_vtt_are_as_players_know_them() -> None:
    assert srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:02,000\nHello there.\n\n2\n00:00:02,000 --> 01:02:03,500\nTom & Jerry\n"
    )
    assert vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nHello there.\n\n00:00:02.000 --> 01:02:03.500\nTom &amp; Jerry\n"
    )
    assert (srt(()), vtt(())) == ("", "WEBVTT\n")


def test_json_has_the_text_and_what_is_counted() -> None:
    transcript = Transcript(TWO, 3723.6, "de")
    assert brief(transcript) == {"text": "Hello there. Tom & Jerry", "usage": {"type": "duration", "seconds": 3724}}


def test_verbose_json_tells_what_it_was_asked_for() -> None:
    transcript = Transcript(TWO, 3723.6, "de")
    whole = verbose(transcript, ())
    assert whole["language"] == "german"
    assert [part["id"] for part in whole["segments"]] == [0, 1]
    assert whole["segments"][1] == {
        "id": 1,
        "seek": 12,
        "start": 2.0,
        "end": 3723.5,
        "text": " Tom & Jerry",
        "tokens": [5, 6],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }
    words = verbose(transcript, [Granularity.WORD])
    assert words["words"][1] == {"word": "there.", "start": 0.5, "end": 2.0}
    assert "segments" not in words
    assert {"words", "segments"} <= verbose(transcript, list(Granularity)).keys()


def test_a_translation_is_english_whatever_was_heard() -> None:
    assert verbose(Transcript(TWO, 4.0, "de", Task.TRANSLATE), ())["language"] == "english"


def test_an_event_is_one_line_of_json() -> None:
    line = event("transcript.text.delta", delta="a\n\u00fc")
    assert line.endswith(b"\n\n")
    assert line.count(b"\n") == 2
    assert json.loads(line.removeprefix(b"data: ")) == {"type": "transcript.text.delta", "delta": "a\n\u00fc"}


@pytest.mark.parametrize(
    ("asked", "code"),
    [("en", "en"), ("EN", "en"), ("German", "de"), ("pt-BR", "pt"), ("zh_TW", "zh"), ("nb", "no"), ("haw", "haw")],
)
def test_languages_are_known_by_code_name_and_tag(asked: str, code: str) -> None:
    assert code_of(asked) == code


@pytest.mark.parametrize("asked", ["", "xx", "klingon", "-", "e n"])
def test_what_is_no_language_is_none(asked: str) -> None:
    assert code_of(asked) is None


def test_every_language_is_found_by_its_name() -> None:
    assert {code_of(name) for name in NAMES.values()} == set(NAMES)

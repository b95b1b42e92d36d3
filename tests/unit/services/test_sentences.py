"""Text is cut where a speaker would breathe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.services.sentences import LONGEST, sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It is raining outside. The cat sleeps!", ["It is raining outside.", "The cat sleeps!"]),
        ('He called out: "Come here now!" Nobody came.', ['He called out: "Come here now!"', "Nobody came."]),
        (
            "Yesterday I met Dr. Smith in St. Ives. It was nice.",
            ["Yesterday I met Dr. Smith in St. Ives.", "It was nice."],
        ),
        ("It costs 3.14 dollars at example.com today.", ["It costs 3.14 dollars at example.com today."]),
        ("No! Yes. Well, if you say so.", ["No! Yes. Well, if you say so."]),
        (
            "今天天气很好、我们一起去公园散步吧。明天会下雨。",
            ["今天天气很好、我们一起去公园散步吧。", "明天会下雨。"],
        ),
        ("A title\n\nand a line\nthat goes on", ["A title", "and a line that goes on"]),
        (" \n… ! \n", []),
        ("", []),
    ],
)
def test_a_piece_is_a_sentence(text: str, pieces: list[str]) -> None:
    assert sentences(text) == pieces


def test_a_long_sentence_is_cut_at_pauses_then_between_words_then_anywhere() -> None:
    assert sentences("one two, three four, five six", longest=20, shortest=1) == ["one two, three four,", "five six"]
    assert sentences("one two, three four five six", longest=24) == ["one two,", "three four five six"]
    assert sentences("one two three four five", longest=10, shortest=1) == ["one two", "three four", "five"]
    assert sentences("abcdefghij", longest=4, shortest=1) == ["abcd", "efgh", "ij"]


@given(st.text(alphabet="aB1 .,!?。、\n\"'…", max_size=400), st.integers(1, 40), st.integers(1, 40))
def test_nothing_that_can_be_said_is_lost_and_no_piece_is_too_long(text: str, longest: int, shortest: int) -> None:
    pieces = sentences(text, longest, shortest)
    assert [letter for letter in "".join(pieces) if letter.isalnum()] == [letter for letter in text if letter.isalnum()]
    assert all(0 < len(piece) <= longest and piece == piece.strip() for piece in pieces)


def test_words_are_kept_whole_where_they_fit() -> None:
    words = ["word"] * 1000
    assert " ".join(sentences(" ".join(words))).split() == words
    assert max(map(len, sentences(" ".join(words)))) > LONGEST - 5

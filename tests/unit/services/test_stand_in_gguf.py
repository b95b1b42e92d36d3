"""The words of the GGUF stand-in: what is written can be read."""

from __future__ import annotations

from modelgrid.services.stand_in import gguf


def test_every_byte_has_a_letter_of_its_own() -> None:
    letters = gguf._letters()
    assert len(set(letters)) == 256
    assert (letters[ord("A")], letters[ord(" ")], letters[ord("\n")]) == ("A", "\u0120", "\u010a")


def test_every_word_is_reached_by_rules_over_tokens_that_are_there() -> None:
    tokens, merges = gguf._vocabulary()
    assert len(set(tokens)) == len(tokens)
    for rule in merges:
        left, right = rule.split(" ")
        assert {left, right, left + right} <= set(tokens)
    assert {f"\u0120{word}" for word in gguf.WORDS.split()} <= set(tokens)
    assert tokens[-3:] == [gguf.START, gguf.END, gguf.PAD]

"""Text in, text out."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.gateway.body import BodyError
from modelgrid.gateway.plain import EventReader, chat_body, read_delta, read_error, read_message
from modelgrid.gateway.reply import EngineTrouble


def stream(texts: list[str], end: str) -> bytes:
    events = [json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}, ensure_ascii=False) for text in texts]
    lines = [": a comment", "event: message", ""]
    for event in [*events, "[DONE]"]:
        lines += [f"data: {event}", "id: 7", ""]
    return (end.join(lines) + end).encode()


@given(
    st.lists(st.text()),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 2000), max_size=30),
)
def test_a_stream_reads_the_same_however_it_is_cut(texts: list[str], end: str, cuts: list[int]) -> None:
    whole = stream(texts, end)
    edges = sorted({0, *(cut % (len(whole) + 1) for cut in cuts), len(whole)})
    reader = EventReader()
    events = [event for a, b in itertools.pairwise(edges) for event in reader.feed(whole[a:b])]
    assert "".join(map(read_delta, events)) == "".join(texts)


def test_data_of_several_lines_is_one_event() -> None:
    assert EventReader().feed(b'data: {"choices":\ndata: []}\n\n') == [b'{"choices":\n[]}']


def test_an_event_is_there_as_soon_as_it_is_whole() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [b"a"]


def test_an_endless_event_is_refused() -> None:
    reader = EventReader()
    assert reader.feed(b"data: " + b"x" * 1_000_000) == []
    with pytest.raises(EngineTrouble, match="larger than"):
        reader.feed(b"x" * 100_000)


def test_an_error_in_the_stream_is_trouble_and_says_which() -> None:
    with pytest.raises(EngineTrouble, match="out of memory"):
        read_delta(b'{"error":{"message":"out of memory"}}')


@pytest.mark.parametrize("event", [b"hello", b"\xff", b"[1]", b'{"choices":[{"delta":{"content":"\xff"}}]}'])
def test_an_event_that_is_no_completion_is_trouble(event: bytes) -> None:
    with pytest.raises(EngineTrouble):
        read_delta(event)


@pytest.mark.parametrize("event", [b"{}", b'{"choices":[]}', b'{"choices":[{"delta":{"content":null}}],"error":null}'])
def test_an_event_without_text_adds_none(event: bytes) -> None:
    assert read_delta(event) == ""


def test_the_prompt_becomes_one_message() -> None:
    assert json.loads(chat_body("a/b", 'say "ü"'.encode())) == {
        "model": "a/b",
        "messages": [{"role": "user", "content": 'say "ü"'}],
        "stream": True,
    }


@pytest.mark.parametrize(("body", "says"), [(b"", "empty"), (b" \n", "empty"), (b"ab\xff", "byte 2 is not UTF-8")])
def test_a_prompt_that_cant_be_read_says_why(body: bytes, says: str) -> None:
    with pytest.raises(BodyError, match=says):
        chat_body("m", body)


def test_a_completion_that_came_whole_has_its_text() -> None:
    assert read_message(b'{"choices":[{"message":{"content":"hi"}}]}') == "hi"
    assert read_message(b"<html>") is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"error":{"message":"no"}}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"detail":"no"}', "no"),
        (b"no\n", "no"),
        (b'{"a":1}', "{'a': 1}"),
    ],
)
def test_an_engines_error_is_found_in_whatever_shape(body: bytes, says: str) -> None:
    assert read_error(body) == says

"""What answers and streams say of tokens, as the engines of the field write it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelgrid.gateway.usage import Usage, read_usage
from modelgrid.gateway.usage_stream import EVENT_LIMIT_BYTES, UsageOfAnswer, UsageOfStream

CHAT = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}

ANSWERS: dict[str, tuple[dict[str, Any], Usage | None]] = {
    "chat": ({"choices": [{"message": {"content": "hi"}}], "usage": CHAT}, Usage(19, 10)),
    "chat with cached": ({"usage": CHAT | {"prompt_tokens_details": {"cached_tokens": 16}}}, Usage(19, 10, 16)),
    "chat without details": ({"usage": CHAT | {"prompt_tokens_details": None}}, Usage(19, 10)),
    "vllm": ({"usage": CHAT, "prompt_logprobs": None, "kv_transfer_params": None}, Usage(19, 10)),
    "tool that is called usage": ({"choices": [{"name": "usage"}], "usage": CHAT}, Usage(19, 10)),
    "text about usage": ({"text": '{"usage": {"prompt_tokens": 1}} "usage', "usage": CHAT}, Usage(19, 10)),
    "usage at the front": ({"usage": CHAT, "choices": [{"usage": {"prompt_tokens": 1}}]}, Usage(19, 10)),
    "usage in a tool's input": ({"content": [{"input": {"usage": {"input_tokens": 5}}}], "model": "m"}, None),
    "responses": (
        {
            "output": [],
            "usage": {
                "input_tokens": 36,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 123,
            },
            "user": None,
            "metadata": {},
        },
        Usage(36, 87, 4),
    ),
    "anthropic": (
        {
            "content": [{"type": "tool_use", "input": {"usage": {"input_tokens": 7}}}],
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": 5,
                "cache_read_input_tokens": 20,
                "output_tokens": 3,
                "service_tier": "standard",
            },
        },
        Usage(35, 3, 20),
    ),
    "embeddings": ({"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8)),
    "rerank": ({"results": [], "usage": {"total_tokens": 56}}, Usage(56)),
    "images": (
        {
            "data": [{"b64_json": "A" * 100_000}],
            "usage": {
                "total_tokens": 100,
                "input_tokens": 50,
                "output_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            },
        },
        Usage(50, 50),
    ),
    "transcription": (
        {"text": "hi", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}},
        Usage(14, 45),
    ),
    "seconds": ({"text": "hi", "usage": {"type": "duration", "seconds": 9}}, Usage(media_s=9.0)),
    "nothing": ({"text": "hi"}, None),
    "null": ({"text": "hi", "usage": None}, None),
    "count_tokens": ({"input_tokens": 3}, None),
    "wrong types": ({"usage": {"prompt_tokens": "many"}}, None),
    "a text": ({"usage": "much"}, None),
}


@pytest.mark.parametrize(("answer", "usage"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_is_read(answer: dict[str, Any], usage: Usage | None, indent: int | None) -> None:
    assert read_usage(json.dumps(answer, indent=indent).encode()) == usage
    assert read_usage(json.dumps(answer, separators=(",", ":")).encode() + b"\n") == usage


@pytest.mark.parametrize(("answer", "usage"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 1000, 50_000])
@pytest.mark.parametrize("is_framed", [False, True])
def test_an_answer_in_parts_is_read(answer: dict[str, Any], usage: Usage | None, size: int, is_framed: bool) -> None:
    if answer.get("choices") == [{"usage": {"prompt_tokens": 1}}] or len(str(answer)) / size > 10_000:
        return
    body = json.dumps(answer).encode()
    reader = UsageOfAnswer()
    for part in _framed(_cut(body, size)) if is_framed else _cut(body, size):
        reader.add(part)
    assert reader.usage == usage


@pytest.mark.parametrize("body", [b"", b"{", b'"usage"', b'{"usage"', b'{"usage":{', b"[" * 100_000 + b'"usage":{}'])
def test_what_is_no_answer_says_nothing(body: bytes) -> None:
    assert read_usage(body) is None


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _framed(parts: list[bytes]) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts] + [b"0\r\n\r\n"]


def _sse(*events: object, name: str = "", end: str = "\n") -> list[bytes]:
    texts = (event if isinstance(event, str) else json.dumps(event, separators=(",", ":")) for event in events)
    return [f"{name and f'event: {name}{end}'}data: {text}{end}{end}".encode() for text in texts]


CHUNK: dict[str, Any] = {"id": "c", "choices": [{"index": 0, "delta": {"content": "hi"}}]}
STREAMS: dict[str, tuple[list[bytes], Usage]] = {
    "chat": (_sse(CHUNK, CHUNK, {"choices": [], "usage": CHAT}, "[DONE]"), Usage(19, 10)),
    "chat, null before": (
        _sse(*[CHUNK | {"usage": None}] * 3, {"choices": [], "usage": CHAT}, "[DONE]"),
        Usage(19, 10),
    ),
    "chat, spaced": (_sse(CHUNK, json.dumps({"usage": None}), json.dumps({"usage": CHAT}), "[DONE]"), Usage(19, 10)),
    "chat, in each event": (
        _sse(*({"usage": CHAT | {"completion_tokens": count}} for count in range(1, 5)), "[DONE]"),
        Usage(19, 4),
    ),
    "CRLF": (_sse(CHUNK, {"choices": [], "usage": CHAT}, "[DONE]", end="\r\n"), Usage(19, 10)),
    "anthropic": (
        _sse({"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}, name="a")
        + _sse({"type": "content_block_delta", "delta": {"text": '"usage":{'}}, name="b")
        + _sse({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}}, name="c")
        + _sse({"type": "message_stop"}, name="d"),
        Usage(25, 15),
    ),
    "responses": (
        _sse({"type": "response.created", "response": {"usage": None}}, name="a")
        + _sse({"type": "response.output_text.delta", "delta": "hi"}, name="b")
        + _sse(
            {
                "type": "response.completed",
                "response": {"output": ["x" * 5000], "usage": {"input_tokens": 4, "output_tokens": 6}},
            }
        ),
        Usage(4, 6),
    ),
    "no blank line at the end": ([*_sse(CHUNK), b'data: {"usage":{"prompt_tokens":3}}'], Usage(3)),
    "comments between": ([b": ping\n\n", *_sse({"usage": CHAT}), b": bye\n\n"], Usage(19, 10)),
}


@pytest.mark.parametrize(("stream", "usage"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_read_event_by_event(stream: list[bytes], usage: Usage) -> None:
    assert _read(stream) == usage


@pytest.mark.parametrize(("stream", "usage"), STREAMS.values(), ids=STREAMS)
@given(size=st.integers(1, 6000))
def test_a_stream_is_read_wherever_it_is_cut(stream: list[bytes], usage: Usage, size: int) -> None:
    assert _read(_cut(b"".join(stream), size)) == usage


@pytest.mark.parametrize(("stream", "usage"), STREAMS.values(), ids=STREAMS)
@given(frame=st.integers(8, 6000), size=st.integers(1, 6000))
def test_a_framed_stream_is_read_wherever_it_is_cut(stream: list[bytes], usage: Usage, frame: int, size: int) -> None:
    assert _read(_framed(stream)) == usage
    whole = b"".join(stream)
    if b"\r" in whole:
        return  # lines that end as frames do are read where frames hold whole events
    framed = b"".join(_framed(_cut(whole, frame)))
    assume(framed.count(b'"usage"') == whole.count(b'"usage"'))  # a frame's edge within the very word goes unseen
    assert _read(_cut(framed, size)) == usage


def _read(parts: list[bytes]) -> Usage:
    reader = UsageOfStream()
    for part in parts:
        reader.add(part)
    return reader.usage


def test_frames_may_be_smaller_than_words() -> None:
    parts = _framed(_cut(b"".join(_sse(CHUNK, {"usage": CHAT}, "[DONE]")), 5))
    assert _read(parts) == Usage(19, 10)


def test_a_stream_that_tells_nothing_is_estimated_by_its_events() -> None:
    events = _sse(*[CHUNK] * 40)
    assert _read(events) == Usage(0, 40, is_estimated=True)
    assert _read([b"".join(events)]) == Usage(0, 40, is_estimated=True)


def test_a_damaged_usage_is_estimated() -> None:
    assert _read([b'data: {"usage":{"prompt_tokens":\n\n', b'data: {"usage":{"prompt_tokens":"x"}}\n\n']).is_estimated


def test_an_endless_event_is_not_kept() -> None:
    reader = UsageOfStream()
    for _ in range(100):
        reader.add(b"x" * 65_536)
        assert len(reader._partial) <= EVENT_LIMIT_BYTES
    reader.add(b"\n\n" + _sse({"usage": CHAT})[0])
    assert reader.usage == Usage(19, 10)


def test_an_answer_that_is_nested_too_deeply_says_nothing() -> None:
    assert read_usage(b'{"usage":{"prompt_tokens":1,"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}}") is None

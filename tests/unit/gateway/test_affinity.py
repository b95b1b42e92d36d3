"""Which requests belong together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelgrid.gateway.affinity import PRIME, Affinity, affinity, digest
from modelgrid.spec import Routing
from modelgrid.spec.operations import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    INFILL,
    MESSAGES,
    OPERATIONS,
    RESPONSES,
)


def made(routing: Routing) -> Affinity:
    policy = affinity(routing)
    assert policy is not None
    return policy


PREFIX = made(Routing(policy="prefix"))


def session(*places: str) -> Affinity:
    return made(Routing(policy="session", session=places))


def prefix(operation: str, **fields: Any) -> int | None:
    return PREFIX.key(operation, {}, json.dumps({"model": "m", "stream": True, **fields}).encode())


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


SYSTEM = said("system", "You are kind.")
HELLO = said("user", "Hello")
ANSWER = said("assistant", "Hi!")
MORE = said("user", "And?")


def test_least_outstanding_looks_at_nothing() -> None:
    assert affinity(Routing()) is None


def test_a_digest_is_the_same_in_all_processes_and_in_its_range() -> None:
    assert digest(b"m-1") == digest(b"m-1") != digest(b"m-2")
    assert all(0 < digest(b"%d" % n) < PRIME for n in range(100))
    assert digest(b"") == 335131519762412227


# Sessions.


def test_a_session_stands_in_a_header() -> None:
    policy = session("header:X-Session-Id")
    assert policy.headers == {b"x-session-id"}
    key = policy.key(CHAT, {b"x-session-id": b"s1"}, b"{}")
    assert key == policy.key(EMBEDDINGS, {b"x-session-id": b"s1"}, b"[other]")
    assert key != policy.key(CHAT, {b"x-session-id": b"s2"}, b"{}")


@pytest.mark.parametrize(
    ("place", "body"),
    [
        ("body:user", b'{"model":"m","user":"s1"}'),
        ("body:user", b'{"user":"s0","n":[{"user":"s2"}],"user":"s\\u0031"}'),
        ("body:metadata.user_id", b'{"metadata":{"a":{"user_id":"s2"},"user_id":"s1"}}'),
        ("body:a-b.c.d", b'{"a-b":{"c":{"d":"s1"}}}'),
    ],
)
def test_a_session_stands_in_the_body(place: str, body: bytes) -> None:
    in_header = session("header:s").key(CHAT, {b"s": b"s1"}, b"")
    assert session(place).key(CHAT, {}, body) == in_header


def test_a_session_may_be_a_number() -> None:
    policy = session("body:user")
    assert policy.key(CHAT, {}, b'{"user":17}') == policy.key(CHAT, {}, b'{"user":"17"}') is not None


def test_the_first_place_where_something_stands_counts() -> None:
    policy = session("header:a", "body:user", "header:b")
    body = b'{"user":"s2"}'
    alone = session("header:a")
    assert policy.key(CHAT, {b"a": b"s1", b"b": b"s3"}, body) == alone.key(CHAT, {b"a": b"s1"}, b"")
    assert policy.key(CHAT, {b"a": b"", b"b": b"s3"}, body) == alone.key(CHAT, {b"a": b"s2"}, b"")
    assert policy.key(CHAT, {b"b": b"s3"}, b"{}") == alone.key(CHAT, {b"a": b"s3"}, b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"user":""}',
        b'{"user":null}',
        b'{"user":true}',
        b'{"user":["a"]}',
        b'{"user":{"id":"a"}}',
        b'{"user":"\xff"}',
        b'{"user":"a"',
        b"[" * 100_000,
    ],
)
def test_a_request_without_a_session_has_no_key(body: bytes) -> None:
    assert session("body:user").key(CHAT, {}, body) is None
    assert session("body:user.id.x").key(CHAT, {}, body) is None


# Prefixes.


def test_the_turns_of_a_chat_have_one_key() -> None:
    first = prefix(CHAT, messages=[SYSTEM, HELLO])
    assert first == prefix(CHAT, messages=[SYSTEM, HELLO, ANSWER, MORE], temperature=0.5) is not None


@pytest.mark.parametrize(
    "messages", [[SYSTEM, MORE], [HELLO], [said("system", "You are rude."), HELLO], [SYSTEM, ANSWER, HELLO]]
)
def test_another_chat_has_another_key(messages: list[object]) -> None:
    assert prefix(CHAT, messages=messages) != prefix(CHAT, messages=[SYSTEM, HELLO])


def test_a_chat_without_a_user_is_known_by_its_first_message() -> None:
    assert prefix(CHAT, messages=[SYSTEM]) == prefix(CHAT, messages=[SYSTEM, ANSWER]) is not None


def test_marks_for_caching_and_the_form_of_a_text_do_not_matter() -> None:
    def part(**more: object) -> list[object]:
        return [{"type": "text", "text": "Hello", **more}]

    plain = prefix(MESSAGES, system="Be kind.", messages=[HELLO])
    marked = prefix(MESSAGES, system="Be kind.", messages=[said("user", part(cache_control={"type": "ephemeral"}))])
    assert plain == marked == prefix(MESSAGES, system="Be kind.", messages=[said("user", part()), ANSWER, MORE])


def test_images_tell_chats_apart() -> None:
    def image(data: str, **more: object) -> dict[str, object]:
        return said("user", [{"type": "image", "source": {"data": data}, **more}, {"type": "text", "text": "What?"}])

    first = prefix(MESSAGES, messages=[image("abc")])
    assert first == prefix(MESSAGES, messages=[image("abc", cache_control={"type": "ephemeral"}), ANSWER])
    assert first != prefix(MESSAGES, messages=[image("abd")])


def test_a_long_preamble_does_not_hide_the_first_message() -> None:
    long = said("system", "x" * 100_000)
    assert prefix(CHAT, messages=[long, HELLO]) != prefix(CHAT, messages=[long, MORE])


def test_long_texts_are_told_apart_by_their_ends_and_their_length() -> None:
    texts = ["x" * 9000, "x" * 9001, "y" + "x" * 8999, "x" * 8999 + "y"]
    assert len({prefix(CHAT, messages=[said("user", text)]) for text in texts}) == 4


@pytest.mark.parametrize("operation", [CHAT, RESPONSES, COMPLETIONS])
def test_a_cache_key_wins(operation: str) -> None:
    one = prefix(operation, prompt_cache_key="k", messages=[HELLO], input="a", prompt="a")
    assert one == prefix(operation, prompt_cache_key="k", messages=[MORE], input="b", prompt="b") is not None
    assert one != prefix(operation, prompt_cache_key="l", messages=[HELLO], input="a", prompt="a")


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_cache_key_is_none(nothing: str | None) -> None:
    assert prefix(CHAT, prompt_cache_key=nothing, messages=[HELLO]) == prefix(CHAT, messages=[HELLO])


def test_a_completion_is_known_by_the_beginning_of_its_prompt() -> None:
    begin = "x" * 2000
    assert prefix(COMPLETIONS, prompt=begin + "a") == prefix(COMPLETIONS, prompt=begin + "abc") is not None
    assert prefix(COMPLETIONS, prompt="a" + begin) != prefix(COMPLETIONS, prompt="b" + begin)
    assert prefix(COMPLETIONS, prompt=[1, 2, 3]) != prefix(COMPLETIONS, prompt=[1, 2, 4])


def test_an_infill_is_known_by_what_stands_before() -> None:
    begin = "x" * 2000
    assert prefix(INFILL, input_prefix=begin + "a") == prefix(INFILL, input_prefix=begin + "b", prompt="c")


def test_a_response_is_known_by_its_instructions_and_first_input() -> None:
    one = prefix(RESPONSES, instructions="Be kind.", input=[HELLO])
    assert one == prefix(RESPONSES, instructions="Be kind.", input=[HELLO, {"type": "reasoning"}, ANSWER, MORE])
    assert one != prefix(RESPONSES, instructions="Be rude.", input=[HELLO])
    assert one != prefix(RESPONSES, instructions="Be kind.", input=[MORE])
    assert prefix(RESPONSES, input="a") != prefix(RESPONSES, input="b")
    assert prefix(RESPONSES, conversation="c1", input="a") == prefix(RESPONSES, conversation="c1", input="b")


def test_counting_tokens_is_of_the_same_conversation() -> None:
    asked = {"system": [{"type": "text", "text": "Be kind."}], "messages": [HELLO]}
    assert prefix(COUNT_TOKENS, **asked) == prefix(MESSAGES, **asked) is not None


@pytest.mark.parametrize("operation", sorted(set(OPERATIONS) - {CHAT, COMPLETIONS, INFILL, MESSAGES, COUNT_TOKENS}))
@pytest.mark.parametrize("body", [b"", b"{}", b'{"input":null}', b'{"input":[]}', b'{"prompt":"a","file":"b"}'])
def test_what_is_no_conversation_has_no_key(operation: str, body: bytes) -> None:
    assert PREFIX.key(operation, {}, body) is None


@pytest.mark.parametrize("operation", [CHAT, COMPLETIONS, INFILL, MESSAGES, RESPONSES])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"[" * 100_000, b'{"messages":' + b"[" * 100_000])
def test_a_body_without_a_beginning_has_no_key(operation: str, body: bytes) -> None:
    assert PREFIX.key(operation, {}, body) is None


anything = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("role", "content", "text", "user", "cache_control")), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(("messages", "system", "instructions", "input", "prompt", "prompt_cache_key", "conversation"))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(OPERATIONS), st.dictionaries(names, anything, max_size=4), st.integers(0, 200))
def test_nothing_is_raised_whatever_is_sent(operation: str, fields: dict[str, object], cut: int) -> None:
    body = json.dumps(fields).encode()
    places = session("body:user", "body:messages.user", "body:input")
    for sent in (body, body[:cut], body[:cut] + b"\xff" + body[cut:]):
        for policy in (PREFIX, places):
            key = policy.key(operation, {}, sent)
            assert key is None or 0 < key < PRIME

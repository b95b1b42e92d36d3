"""Secrets don't come out of the log, whichever way they got in."""

from __future__ import annotations

import pytest

from modelgrid.telemetry import redacted


@pytest.mark.parametrize(
    "secret",
    [
        "mg-CANARYcanary0123456789_-x",
        "sk-CANARYcanary0123456789",
        "hf_CANARYcanary0123456789",
        "Authorization: Bearer CANARY",
        "authorization: bearer CANARY",
        "Basic Q0FOQVJZOnB3CANARY=",
        "http://user:CANARY@host/v1",
        "https://CANARY@host",
        "api_key=CANARY",
        "OPENAI_API_KEY='CANARY'",
        '{"api_key": "CANARY"}',
        "https://host/?token=CANARY&x=1",
        "password: CANARY",
        "x-api-key: CANARY",
    ],
)
def test_what_looks_like_a_secret_is_masked_within_any_text(secret: str) -> None:
    text = redacted(f"before {secret} after")
    assert "CANARY" not in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    assert "********" in text


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=12 and tokens: 5",
        "GET http://127.0.0.1:9000/v1/models 200",
        "qwen2.5-7b: loaded model org/mg-small in 4.2s",
        "the key of a map; a token limit",
        "no room for key_id=k1",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.timeout(20)
def test_a_hostile_text_is_read_in_time_that_grows_with_its_length_only() -> None:
    text = "a_" * 100_000
    assert redacted(text) == text

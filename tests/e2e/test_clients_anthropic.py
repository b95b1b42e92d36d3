"""The official Anthropic client for Python, through the gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest

from e2e.clients import FITTING, SCHEMA, SOLO, Served, told
from e2e.daemon import until

ASKED: Any = [{"role": "user", "content": "hello there"}]
TOOL: Any = {"name": "forecast", "input_schema": SCHEMA}


class Forecast(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture
def client(served: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.url, api_key=served.key, timeout=30, max_retries=0) as made:
        yield made


def said(message: Any) -> str:
    text: str = message.content[0].text
    return text


def test_a_message_is_answered_whole_and_streamed(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model="claude-sonnet", max_tokens=99, messages=ASKED)
    assert said(whole).startswith("pid ")
    assert whole.usage.output_tokens > 0
    with client.messages.stream(model=SOLO, max_tokens=99, messages=ASKED) as stream:
        assert "".join(stream.text_stream) == said(whole)
        assert stream.get_final_message().stop_reason == "end_turn"
    kinds = [event.type for event in client.messages.create(model=SOLO, max_tokens=99, messages=ASKED, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_a_bearer_token_lets_in_as_well(served: Served) -> None:
    with anthropic.Anthropic(base_url=served.url, api_key=None, auth_token=served.key, max_retries=0) as client:
        assert client.messages.create(model=SOLO, max_tokens=99, messages=ASKED).content


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(model=SOLO, messages=ASKED).input_tokens > 0


def test_a_tool_is_called_and_its_result_answered(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(model=SOLO, max_tokens=99, messages=ASKED, tools=[TOOL])
    (use,) = asked.content
    assert use.type == "tool_use"
    assert (asked.stop_reason, use.name, use.input) == ("tool_use", "forecast", FITTING)
    with client.messages.stream(model=SOLO, max_tokens=99, messages=ASKED, tools=[TOOL]) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.type == "tool_use"
    assert streamed.input == FITTING
    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
    talk = [*ASKED, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    assert said(client.messages.create(model=SOLO, max_tokens=99, messages=talk, tools=[TOOL])).startswith("pid ")


def test_structured_output_is_parsed(client: anthropic.Anthropic) -> None:
    parsed = client.messages.parse(model=SOLO, max_tokens=99, messages=ASKED, output_format=Forecast)
    assert isinstance(parsed.parsed_output, Forecast)


ERRORS = [
    (400, anthropic.BadRequestError),
    (401, anthropic.AuthenticationError),
    (403, anthropic.PermissionDeniedError),
    (404, anthropic.NotFoundError),
    (422, anthropic.UnprocessableEntityError),
    (429, anthropic.RateLimitError),
    (500, anthropic.InternalServerError),
    (529, anthropic.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_engines_error_is_the_clients_exception(
    client: anthropic.Anthropic, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(kind) as caught:
        client.messages.create(model=SOLO, max_tokens=99, messages=ASKED, extra_headers=told(status=status))
    assert caught.value.status_code == status
    assert f"told to answer {status}" in caught.value.message


def test_modelgrids_own_errors_are_the_clients_exceptions(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="nothing", max_tokens=99, messages=ASKED)
    assert unknown.value.body["type"] == "error"  # type: ignore[index] # it is what came, and of no declared type
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index] # as above
    with pytest.raises(anthropic.AuthenticationError) as stranger:
        client.with_options(api_key="mg-wrong").messages.create(model=SOLO, max_tokens=99, messages=ASKED)
    assert stranger.value.body["error"]["type"] == "authentication_error"  # type: ignore[index] # as above


def test_an_engine_lost_within_a_stream_is_an_error_of_the_stream(client: anthropic.Anthropic) -> None:
    headers = told(cut_events=4, chunk_delay=0.05)
    stream = client.messages.create(model=SOLO, max_tokens=99, messages=ASKED, stream=True, extra_headers=headers)
    kinds: list[str] = []
    with pytest.raises(anthropic.APIError) as caught:
        kinds.extend(event.type for event in stream)
    assert kinds[0] == "message_start"
    assert "message_stop" not in kinds
    assert not isinstance(caught.value, anthropic.APIConnectionError)


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_client_retries_as_long_as_it_is_told_to_wait(
    served: Served, client: anthropic.Anthropic, status: int
) -> None:
    headers = told(status=status, retry_after="1", first=1)
    began = time.monotonic()
    patient = client.with_options(max_retries=2)
    assert said(patient.messages.create(model=SOLO, max_tokens=99, messages=ASKED, extra_headers=headers))
    assert 1 <= time.monotonic() - began < 10
    assert [seen["status"] for seen in served.course(headers["x-request-id"])] == [status, 200]


def test_a_client_that_times_out_frees_the_engine(served: Served, client: anthropic.Anthropic) -> None:
    headers = told(hang=True)
    hasty = client.with_options(timeout=0.5)
    with pytest.raises(anthropic.APITimeoutError):
        hasty.messages.create(model=SOLO, max_tokens=99, messages=ASKED, extra_headers=headers)
    until("the engine is told", lambda: [one for one in served.course(headers["x-request-id"]) if one["left"]])

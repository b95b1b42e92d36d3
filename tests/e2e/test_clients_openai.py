"""The official OpenAI client for Python, through the gateway."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest

from e2e.clients import FITTING, PAIR, PICTURE, SCHEMA, SOLO, SOUND, Served, heard, told
from e2e.daemon import until

ASKED: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {"type": "function", "function": {"name": "forecast", "parameters": SCHEMA}}


class Forecast(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, timeout=30, max_retries=0) as made:
        yield made


def test_a_chat_is_answered_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert whole.choices[0].message.content
    assert whole.usage
    stream = client.chat.completions.create(
        model=SOLO, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    events = list(stream)
    said = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert said == whole.choices[0].message.content
    assert events[-1].usage == whole.usage
    completion = client.completions.create(model=SOLO, prompt="hello", stream=True)
    assert "".join(event.choices[0].text for event in completion) == said


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert {SOLO, PAIR} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(SOLO).id == SOLO


def test_a_tool_is_called_and_its_result_answered(client: openai.OpenAI) -> None:
    asked = client.chat.completions.create(model=SOLO, messages=ASKED, tools=[TOOL])
    (call,) = asked.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == FITTING

    with client.chat.completions.stream(model=SOLO, messages=ASKED, tools=[TOOL]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls or []
    assert json.loads(streamed.function.arguments) == FITTING

    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages = [*ASKED, asked.choices[0].message.to_dict(), result]
    answer = client.chat.completions.create(model=SOLO, messages=messages, tools=[TOOL])
    assert (answer.choices[0].message.content or "").startswith("pid ")


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(model=SOLO, messages=ASKED, response_format=Forecast)
    assert isinstance(parsed.choices[0].message.parsed, Forecast)
    response = client.responses.parse(model=SOLO, input="?", text_format=Forecast)
    assert isinstance(response.output_parsed, Forecast)


def test_responses_are_made_streamed_kept_and_deleted(client: openai.OpenAI) -> None:
    made = client.responses.create(model=SOLO, input="hello")
    assert made.output_text.startswith("pid ")
    assert client.responses.retrieve(made.id).output_text == made.output_text
    assert client.responses.input_items.list(made.id).data
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)

    with client.responses.stream(model=SOLO, input="hello") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == made.output_text
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    waiting = client.responses.create(model=SOLO, input="hello", background=True)
    assert client.responses.cancel(waiting.id).status == "cancelled"


def test_a_response_is_found_at_the_replica_that_made_it(client: openai.OpenAI) -> None:
    made = [client.responses.create(model=PAIR, input="hello") for _ in range(6)]
    assert len({response.output_text.split()[1] for response in made}) == 2
    for response in made * 2:
        assert client.responses.retrieve(response.id).output_text == response.output_text


def test_numbers_are_read(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model=SOLO, input=["a", "b"]).data
    assert [len(vector.embedding) for vector in vectors] == [8, 8]
    assert client.moderations.create(model=SOLO, input="hello").results[0].flagged in (True, False)


def test_sounds_are_uploaded_and_made(client: openai.OpenAI, tmp_path: Path) -> None:
    file = ("talk.wav", SOUND)
    assert client.audio.transcriptions.create(model=SOLO, file=file).text == heard("talk.wav", SOUND)
    assert client.audio.translations.create(model=SOLO, file=file).text == heard("talk.wav", SOUND)
    stream = client.audio.transcriptions.create(model=SOLO, file=file, stream=True)
    deltas = "".join(event.delta for event in stream if event.type == "transcript.text.delta")
    assert deltas == heard("talk.wav", SOUND)
    text: Any = client.audio.transcriptions.create(model=SOLO, file=file, response_format="text")
    assert text == heard("talk.wav", SOUND) + "\n"

    with client.audio.speech.with_streaming_response.create(model=SOLO, voice="alloy", input="hello") as speech:
        speech.stream_to_file(tmp_path / "speech.wav")
    assert (tmp_path / "speech.wav").read_bytes().startswith(b"RIFF")


def test_a_file_from_disk_is_uploaded(client: openai.OpenAI, tmp_path: Path) -> None:
    data = SOUND * 8
    (tmp_path / "long.wav").write_bytes(data)
    assert client.audio.transcriptions.create(model=SOLO, file=tmp_path / "long.wav").text == heard("long.wav", data)


def test_pictures_are_made_and_uploaded(client: openai.OpenAI) -> None:
    made = client.images.generate(model=SOLO, prompt="a fox", n=2)
    for picture in made.data or []:
        assert base64.b64decode(picture.b64_json or "").startswith(b"\x89PNG")
    edited = client.images.edit(
        model=SOLO, prompt="an owl", image=[("a.png", PICTURE), ("b.png", PICTURE[::-1])], mask=("m.png", b"mask")
    )
    assert _files(edited) == [_digest(PICTURE), _digest(PICTURE[::-1]), _digest(b"mask")]
    varied = client.images.create_variation(model=SOLO, image=("a.png", PICTURE))
    assert _files(varied) == [_digest(PICTURE)]
    stream = client.images.generate(model=SOLO, prompt="a fox", stream=True, partial_images=2)
    assert [event.type for event in stream][-1] == "image_generation.completed"


def _files(answer: Any) -> list[str]:
    parts = answer.model_extra["received"]["parts"]
    return [part["sha256"] for part in parts if "filename" in part]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_video_is_made_fetched_and_deleted(client: openai.OpenAI) -> None:
    job = client.videos.create_and_poll(model=SOLO, prompt="a fox", input_reference=("a.png", PICTURE))
    assert job.status == "completed"
    assert client.videos.download_content(job.id).content[4:8] == b"ftyp"
    assert client.videos.remix(job.id, prompt="an owl").remixed_from_video_id == job.id
    assert client.videos.delete(job.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(job.id)


ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


@pytest.mark.parametrize(("status", "kind"), ERRORS)
def test_an_engines_error_is_the_clients_exception(
    client: openai.OpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=SOLO, messages=ASKED, extra_headers=told(status=status))
    assert caught.value.status_code == status
    assert f"told to answer {status}" in caught.value.message


def test_modelgrids_own_errors_are_the_clients_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nothing", messages=ASKED)
    assert "nothing" in unknown.value.message
    with pytest.raises(openai.AuthenticationError) as stranger:
        client.with_options(api_key="mg-wrong").models.list()
    assert stranger.value.code == "invalid_api_key"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=SOLO, messages=ASKED, extra_body={"model": 3})


def test_an_engine_lost_within_a_stream_is_an_error_of_the_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=SOLO, messages=ASKED, stream=True, extra_headers=told(cut_events=2, chunk_delay=0.05)
    )
    said: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        said.extend(event.choices[0].delta.content for event in stream)
    assert len(said) == 2
    assert not isinstance(caught.value, openai.APIConnectionError)


def test_an_answer_cut_short_is_a_connection_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model=SOLO, messages=ASKED, extra_headers=told(cut="middle"))


@pytest.mark.parametrize("status", [429, 503])
def test_a_client_retries_as_long_as_it_is_told_to_wait(served: Served, client: openai.OpenAI, status: int) -> None:
    headers = told(status=status, retry_after="1", first=1)
    began = time.monotonic()
    answer = client.with_options(max_retries=2).chat.completions.create(
        model=SOLO, messages=ASKED, extra_headers=headers
    )
    assert answer.choices
    assert 1 <= time.monotonic() - began < 10
    assert [seen["status"] for seen in served.course(headers["x-request-id"])] == [status, 200]


def test_a_client_gives_up_after_its_retries(served: Served, client: openai.OpenAI) -> None:
    headers = told(status=503, retry_after="0.1")
    with pytest.raises(openai.InternalServerError) as caught:
        client.with_options(max_retries=1).chat.completions.create(model=SOLO, messages=ASKED, extra_headers=headers)
    assert caught.value.response.headers["retry-after"] == "0.1"
    assert [seen["status"] for seen in served.course(headers["x-request-id"])] == [503, 503]


def test_a_client_that_times_out_frees_the_engine(served: Served, client: openai.OpenAI) -> None:
    for patience_s in (0.5, 2.0, 8.0):  # where everything stood still, the gateway sees it come and go at once
        headers = told(hang=True)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=patience_s).chat.completions.create(
                model=SOLO, messages=ASKED, extra_headers=headers
            )
        if served.course(headers["x-request-id"]):
            break
    until("the engine is told", lambda: [one for one in served.course(headers["x-request-id"]) if one["left"]], 10)


def test_a_stream_that_its_reader_leaves_is_ended_at_the_engine(served: Served, client: openai.OpenAI) -> None:
    headers = told(chunks=1000, chunk_delay=0.02)
    with client.chat.completions.create(model=SOLO, messages=ASKED, stream=True, extra_headers=headers) as stream:
        next(iter(stream))
    until("the engine is told", lambda: [one for one in served.course(headers["x-request-id"]) if one["left"]])


def test_many_streams_at_once_reach_both_replicas(served: Served) -> None:
    async def ask(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model=PAIR, messages=ASKED, stream=True, extra_headers=told(chunks=20, chunk_delay=0.01)
        )
        return "".join([event.choices[0].delta.content or "" async for event in stream])

    async def crowd() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
            return await asyncio.gather(*(ask(client) for _ in range(40)))

    said = asyncio.run(crowd())
    assert all(text.endswith(" word19") for text in said)
    assert len({text.split()[1] for text in said}) == 2


def test_what_the_client_sends_arrives_as_sent(served: Served, client: openai.OpenAI) -> None:
    headers = told()
    odd = {"future_field": {"ünïcode": "\U0001f98a", "large": 10**30}, "seed": 1}
    client.chat.completions.create(model=SOLO, messages=ASKED, extra_headers=headers, extra_body=odd)
    (seen,) = served.received(headers["x-request-id"])
    sent = json.loads(base64.b64decode(seen["body_base64"]))
    assert {name: sent[name] for name in odd} == odd
    names = {name.lower() for name, _ in seen["headers"]}
    assert {"x-stainless-lang", "user-agent"} <= names
    assert served.key not in json.dumps(seen)

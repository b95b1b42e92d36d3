"""The test engine serves what engines of the field serve, in their shapes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import wave
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from unit.services.conftest import Program

Faulty = Callable[..., "Program"]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "size": {"$ref": "#/$defs/size"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
    },
    "$defs": {"size": {"type": "integer", "minimum": 7}},
}
FITTING = {"name": "x", "size": 7, "tags": ["a"], "maybe": None}


def events(answer: httpx.Response) -> list[Any]:
    """The data of a stream's events; their names agree with their types."""
    assert answer.headers["content-type"] == "text/event-stream"
    found = []
    for block in answer.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines.get("data", "[DONE]") != "[DONE]":
            data = json.loads(lines["data"])
            assert lines.get("event", data.get("type")) == data.get("type")
            found.append(data)
    return found


def upload(program: Program, path: str, files: Any, **fields: str) -> httpx.Response:
    return httpx.post(program.url + path, data=fields, files=files)


def test_a_tool_is_called_whole_and_streamed(faulty: Faulty) -> None:
    program = faulty()
    function = {"name": "weigh", "parameters": SCHEMA}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}]}
    body["tools"] = [{"type": "function", "function": {"name": "other"}}, {"type": "function", "function": function}]
    body["tool_choice"] = {"type": "function", "function": {"name": "weigh"}}
    (choice,) = program.post("/v1/chat/completions", body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weigh", FITTING)

    deltas = [
        event["choices"][0]["delta"]["tool_calls"][0]["function"]
        for event in events(program.post("/v1/chat/completions", {**body, "stream": True}))
        if event["choices"][0]["delta"]
    ]
    assert deltas[0]["name"] == "weigh"
    assert json.loads("".join(delta["arguments"] for delta in deltas)) == FITTING

    told = [*body["messages"], {"role": "tool", "content": "3 kg", "tool_call_id": call["id"]}]
    answer = program.post("/v1/chat/completions", {**body, "messages": told}).json()
    assert answer["choices"][0]["message"]["content"].startswith("pid ")


def test_an_answer_fits_the_schema_that_is_asked_for(faulty: Faulty) -> None:
    program = faulty()
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    chat = program.post("/v1/chat/completions", {"response_format": wanted}).json()
    assert json.loads(chat["choices"][0]["message"]["content"]) == FITTING
    text = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    response = program.post("/v1/responses", {"input": "?", "text": text}).json()
    assert json.loads(response["output"][0]["content"][0]["text"]) == FITTING
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    message = program.post("/v1/messages", {"max_tokens": 9, "output_config": config}).json()
    assert json.loads(message["content"][0]["text"]) == FITTING


def test_a_response_is_kept_until_it_is_deleted(faulty: Faulty) -> None:
    program = faulty("--model", "m")
    made = program.post("/v1/responses", {"model": "m", "input": "hello"}).json()
    path = f"/v1/responses/{made['id']}"
    assert program.get(path).json() == made
    assert program.get(f"{path}/input_items").json()["data"][0]["content"] == "hello"
    assert httpx.delete(program.url + path).json() == {"id": made["id"], "object": "response", "deleted": True}
    assert program.get(path).status_code == 404
    assert program.post(f"{path}/cancel").status_code == 404
    assert program.post("/v1/responses", {"model": "other", "input": "hello"}).status_code == 404


def test_a_response_in_the_background_can_be_cancelled(faulty: Faulty) -> None:
    program = faulty()
    body = {"input": "hello", "background": True}
    first, second = (program.post("/v1/responses", body).json() for _ in range(2))
    assert first["status"] == "queued"
    assert program.post(f"/v1/responses/{first['id']}/cancel").json()["status"] == "cancelled"
    assert program.get(f"/v1/responses/{first['id']}").json()["status"] == "cancelled"
    assert program.get(f"/v1/responses/{second['id']}").json()["status"] == "completed"
    assert program.post(f"/v1/responses/{second['id']}/cancel").status_code == 200


def test_a_response_is_streamed_in_numbered_events(faulty: Faulty) -> None:
    program = faulty()
    stream = events(program.post("/v1/responses", {"input": "hello", "stream": True}))
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    assert [event["type"] for event in stream[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert stream[-1]["type"] == "response.completed"
    said = "".join(event["delta"] for event in stream if event["type"] == "response.output_text.delta")
    assert said == stream[-1]["response"]["output"][0]["content"][0]["text"]
    path = f"/v1/responses/{stream[0]['response']['id']}?stream=true&starting_after=3"
    assert events(program.get(path)) == stream[4:]

    tools = [{"type": "function", "name": "weigh", "parameters": SCHEMA}]
    stream = events(program.post("/v1/responses", {"input": "?", "stream": True, "tools": tools}))
    (done,) = (event for event in stream if event["type"] == "response.function_call_arguments.done")
    assert json.loads(done["arguments"]) == FITTING


def test_messages_speak_as_anthropic_does(faulty: Faulty) -> None:
    program = faulty("--model", "m")
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello there"}]}
    whole = program.post("/v1/messages", body).json()
    assert (whole["type"], whole["stop_reason"]) == ("message", "end_turn")
    stream = events(program.post("/v1/messages", {**body, "stream": True}))
    kinds = [event["type"] for event in stream]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    said = "".join(event["delta"]["text"] for event in stream if event["type"] == "content_block_delta")
    assert said == whole["content"][0]["text"]

    tools = [{"name": "weigh", "input_schema": SCHEMA}]
    asked = program.post("/v1/messages", {**body, "tools": tools}).json()
    assert (asked["stop_reason"], asked["content"][0]["input"]) == ("tool_use", FITTING)
    stream = events(program.post("/v1/messages", {**body, "tools": tools, "stream": True}))
    parts = [event["delta"]["partial_json"] for event in stream if event["type"] == "content_block_delta"]
    assert json.loads("".join(parts)) == FITTING

    assert program.post("/v1/messages/count_tokens", body).json()["input_tokens"] > 0
    wrong = program.post("/v1/messages", {**body, "model": "other"})
    assert (wrong.status_code, wrong.json()["type"], wrong.json()["error"]["type"]) == (404, "error", "not_found_error")
    assert program.post("/v1/messages", {"model": "m"}).json()["error"]["type"] == "invalid_request_error"


def test_numbers_are_answered_in_the_shapes_of_their_apis(faulty: Faulty) -> None:
    program = faulty()
    ranked = {"query": "red fox", "documents": ["blue", "a red fox", "red"], "top_n": 2}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        answer = program.post(path, ranked).json()
        assert [result["index"] for result in answer["results"]] == [1, 2]
        assert answer["results"][0]["relevance_score"] == 1.0
    for path in ("/score", "/v1/score"):
        scored = program.post(path, {"text_1": "red", "text_2": ["red", "blue"]}).json()
        assert [item["score"] for item in scored["data"]] == [1.0, 0.0]
    (classified,) = program.post("/classify", {"input": "x"}).json()["data"]
    assert classified["num_classes"] == len(classified["probs"]) == 2
    assert len(program.post("/pooling", {"input": ["x", "y"]}).json()["data"]) == 2
    (moderated,) = program.post("/v1/moderations", {"input": "x"}).json()["results"]
    assert moderated["flagged"] == any(moderated["categories"].values())


def test_tokens_lead_back_to_their_text(faulty: Faulty) -> None:
    program = faulty()
    tokens = program.post("/tokenize", {"prompt": "héllo 🦊"}).json()
    assert tokens["count"] == 7
    assert program.post("/detokenize", {"tokens": tokens["tokens"]}).json()["prompt"] == "héllo 🦊"
    assert program.post("/tokenize", {"content": "ab"}).json()["tokens"] == [97, 98]


def test_infill_speaks_as_llama_cpp_does(faulty: Faulty) -> None:
    program = faulty()
    body = {"input_prefix": "def f(", "input_suffix": "): pass"}
    whole = program.post("/infill", body).json()
    stream = events(program.post("/infill", {**body, "stream": True}))
    assert "".join(event["content"] for event in stream) == whole["content"]
    assert [event["stop"] for event in stream] == [False] * 4 + [True]


def test_a_picture_is_a_real_png(faulty: Faulty) -> None:
    program = faulty()
    answer = program.post("/v1/images/generations", {"prompt": "a fox", "n": 2}).json()
    pictures = [base64.b64decode(item["b64_json"]) for item in answer["data"]]
    assert len(set(pictures)) == 2
    for picture in pictures:
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        side = struct.unpack(">I", picture[16:20])[0]
        at = picture.index(b"IDAT") + 4
        length = struct.unpack(">I", picture[at - 8 : at - 4])[0]
        assert len(zlib.decompress(picture[at : at + length])) == side * (3 * side + 1)
    stream = events(program.post("/v1/images/generations", {"stream": True, "partial_images": 1}))
    assert [event["type"] for event in stream] == ["image_generation.partial_image", "image_generation.completed"]


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/images/variations"])
def test_an_upload_is_answered_with_what_was_received(faulty: Faulty, path: str) -> None:
    program = faulty("--model", "m")
    picture = bytes(range(256)) * 1000 + b"\r\n--"
    files = [("image[]", ("a.png", picture, "image/png")), ("mask", ("b.png", b"", "image/png"))]
    answer = upload(program, path, files, model="m", prompt="a fox\r\n").json()
    parts = {part["name"]: part for part in answer["received"]["parts"]}
    assert list(parts) == ["model", "prompt", "image[]", "mask"]
    assert parts["prompt"]["value"] == "a fox\r\n"
    assert (parts["image[]"]["size"], parts["mask"]["size"]) == (len(picture), 0)
    assert parts["image[]"]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert upload(program, path, files, model="other").status_code == 404
    assert upload(program, path, [], model="m").status_code == 400


def test_speech_is_a_real_sound_in_chunks(faulty: Faulty) -> None:
    program = faulty("--chunks", "3")
    answer = program.post("/v1/audio/speech", {"input": "hello", "voice": "alloy"})
    assert answer.headers["transfer-encoding"] == "chunked"
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getnframes(), sound.getframerate()) == (600, 8000)
    stream = events(program.post("/v1/audio/speech", {"input": "hello", "stream_format": "sse"}))
    assert b"".join(base64.b64decode(event.get("audio", "")) for event in stream) == answer.content


def test_a_transcription_names_the_file(faulty: Faulty) -> None:
    program = faulty()
    sound = b"RIFF" + bytes(100_000)
    files = {"file": ("a.wav", sound, "audio/wav")}
    text = f"a.wav of {len(sound)} bytes, sha256 {hashlib.sha256(sound).hexdigest()}"
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        assert upload(program, path, files).json()["text"] == text
        assert upload(program, path, files, response_format="text").text == f"{text}\n"
        assert text in upload(program, path, files, response_format="vtt").text
        assert upload(program, path, files, response_format="verbose_json").json()["segments"][0]["text"] == text
        stream = events(upload(program, path, files, stream="true"))
        assert "".join(event.get("delta", "") for event in stream) == text
        assert stream[-1]["text"] == text


def test_a_video_is_a_job_with_a_content(faulty: Faulty) -> None:
    program = faulty("--model", "m")
    first = program.post("/v1/videos", {"model": "m", "prompt": "a fox"}).json()
    reference = {"input_reference": ("a.png", b"png", "image/png")}
    second = upload(program, "/v1/videos", reference, model="m", prompt="an owl", seconds="8").json()
    assert (first["status"], second["seconds"], second["received"]["parts"][-1]["size"]) == ("queued", "8", 3)
    path = f"/v1/videos/{first['id']}"
    assert program.get(path).json()["status"] == "completed"
    assert [job["id"] for job in program.get("/v1/videos?limit=1&order=asc").json()["data"]] == [first["id"]]
    content = program.get(f"{path}/content")
    assert content.headers["content-type"] == "video/mp4"
    assert content.content[4:8] == b"ftyp"
    assert first["id"].encode() in content.content
    remix = program.post(f"{path}/remix", {"prompt": "a cat"}).json()
    assert (remix["remixed_from_video_id"], remix["prompt"]) == (first["id"], "a cat")
    assert httpx.delete(program.url + path).json()["deleted"] is True
    assert program.get(path).status_code == program.get(f"{path}/content").status_code == 404


def test_what_an_engine_cannot_read_is_its_error(faulty: Faulty) -> None:
    program = faulty()
    assert program.post("/v1/chat/completions", {"messages": 3}).status_code == 500
    assert program.post("/v1/tokenize", {"prompt": "x"}).status_code == 404  # vLLM has it at the root only
    cut = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nsound'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert program.post("/v1/audio/transcriptions", cut, headers=headers).status_code == 400

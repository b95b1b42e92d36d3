"""The transcription service: what it reads of a form, what it answers, and that a caller that leaves ends its work."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from modelgrid.services import whisper
from modelgrid.services.languages import NAMES
from modelgrid.services.transcription import TEMPERATURES
from unit.services.conftest import Start, until
from unit.services.whisperer import Model, Ready

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"


@contextmanager
def served(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


@pytest.fixture
def service() -> Ready:
    return Ready()


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    with served(service) as client:
        yield client


def ask(client: TestClient, sound: bytes = b"abc", path: str = TRANSCRIPTIONS, **fields: Any) -> Any:
    return client.post(path, files={"file": ("a.wav", sound)}, data={"model": "mini", **fields})


def form(**fields: str | list[str]) -> dict[str, Any]:
    """Fields whose names are no names of Python's: ``a__b`` is ``a[b]``, ``a__`` is ``a[]``."""
    return {re.sub("__(.*)", r"[\1]", name): value for name, value in fields.items()}


def refused(answer: Any) -> tuple[int, str | None, str | None]:
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return answer.status_code, error["param"], error["code"]


def test_what_was_heard_is_answered_as_json(client: TestClient) -> None:
    assert ask(client).json() == {"text": "a so b so c so", "usage": {"type": "duration", "seconds": 3}}


@pytest.mark.parametrize(
    ("shape", "kind", "begins"),
    [
        ("text", "text/plain", "a so b so\n"),
        ("srt", "text/plain", "1\n00:00:00,250 --> 00:00:01,500\na so\n\n2\n00:00:01,500 --> 00:00:02,000\nb so\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.250 --> 00:00:01.500\na so\n"),
    ],
)
def test_other_shapes_are_text(client: TestClient, shape: str, kind: str, begins: str) -> None:
    answer = ask(client, b"ab", response_format=shape)
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.text.startswith(begins)


def test_pieces_follow_each_other_in_time_and_each_knows_what_was_said(client: TestClient, service: Ready) -> None:
    answer = ask(client, b"abcdef", response_format="verbose_json", prompt="Once").json()
    assert [(part["start"], part["end"], part["text"]) for part in answer["segments"]] == [
        *((0.25, 1.5, " a so"), (1.5, 2.5, " b so"), (2.5, 3.5, " c so"), (3.5, 4.0, " d so")),
        *((4.25, 5.5, " e so"), (5.5, 6.0, " f so")),
    ]
    assert [part["seek"] for part in answer["segments"]] == [3, 3, 3, 3, 403, 403]
    assert (answer["language"], answer["duration"], answer["task"]) == ("french", 6.0, "transcribe")
    first, second = service.model.calls
    assert (first["initial_prompt"], second["initial_prompt"]) == ("Once", "Once a so b so c so d so")
    assert (first["language"], second["language"]) == (None, "fr")


def test_a_segment_without_text_is_left_out(client: TestClient) -> None:
    assert len(ask(client, b"a_c", response_format="verbose_json").json()["segments"]) == 2


def test_words_have_times_where_they_are_asked_for(client: TestClient) -> None:
    answer = ask(client, b"abcde", response_format="verbose_json", **form(timestamp_granularities__=["word"])).json()
    assert answer["words"][-2:] == [{"word": "e", "start": 4.25, "end": 4.5}, {"word": "so", "start": 4.5, "end": 5.0}]
    assert "segments" not in answer
    both = ask(client, response_format="verbose_json", **form(timestamp_granularities__=["word", "segment"])).json()
    assert {"words", "segments"} <= both.keys()


def test_what_is_asked_for_reaches_the_library(client: TestClient, service: Ready) -> None:
    ask(client)
    ask(client, language="German", temperature="0.4", chunking_strategy="auto")
    ask(client, **form(chunking_strategy__type="server_vad", chunking_strategy__threshold="0.3"))
    ask(client, language="auto", chunking_strategy='{"type": "server_vad", "silence_duration_ms": 70}', prompt="")
    usual, told, parted, written = service.model.calls
    assert (usual["temperature"], usual["vad_filter"], usual["language"], usual["beam_size"]) == (
        *(TEMPERATURES, False, None, 5),
    )
    assert (told["language"], told["temperature"], told["vad_filter"]) == ("de", (0.4,), True)
    assert parted["vad_parameters"] == {"threshold": 0.3}
    assert written["vad_parameters"] == {"min_silence_duration_ms": 70}
    assert (written["language"], written["initial_prompt"]) == (None, None)


def test_a_translation_is_asked_for_as_one(client: TestClient, service: Ready) -> None:
    answer = ask(client, path=TRANSLATIONS, response_format="verbose_json", stream="true").json()
    assert (answer["task"], answer["language"]) == ("translate", "english")
    assert service.model.calls[0]["task"] == "translate"


def test_a_stream_tells_each_segment_and_then_the_whole(client: TestClient) -> None:
    answer = ask(client, b"abcde", stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert [event["type"] for event in events] == ["transcript.text.delta"] * 5 + ["transcript.text.done"]
    assert "".join(event.get("delta", "") for event in events) == events[-1]["text"] == "a so b so c so d so e so"
    assert events[-1]["usage"] == {"type": "duration", "seconds": 5}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "klingon"}, "language"),
        ({"response_format": "docx"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        (form(timestamp_granularities__="word"), "timestamp_granularities"),
        (form(response_format="verbose_json", timestamp_granularities__="letter"), "timestamp_granularities.0"),
        ({"stream": "true", "response_format": "srt"}, "response_format"),
        ({"stream": "perhaps"}, "stream"),
        ({"chunking_strategy": "odd"}, "chunking_strategy"),
        ({"chunking_strategy": "[" * 200_000}, "chunking_strategy"),
        (form(language__of="me"), "language"),
        (form(timestamp_granularities__of="me") | {"timestamp_granularities": "word"}, "timestamp_granularities"),
        (form(chunking_strategy__threshold="7"), "chunking_strategy.threshold"),
        ({"language": "sw"}, "language"),  # Whisper knows it, this model doesn't
    ],
)
def test_what_cannot_be_read_is_named(client: TestClient, fields: dict[str, Any], param: str) -> None:
    assert refused(ask(client, **fields)) == (400, param, "invalid_value")
    assert ask(client).status_code == 200


def test_fields_that_are_left_empty_are_not_there(client: TestClient) -> None:
    assert ask(client, language="", prompt="", temperature="", response_format="", stream="").status_code == 200


def test_fields_that_nobody_knows_are_ignored(client: TestClient) -> None:
    assert ask(client, **form(include__="logprobs", odd="x", a__b="c")).status_code == 200


def test_sound_that_is_none_is_refused_plain_and_streamed(client: TestClient) -> None:
    for fields in (form(), form(stream="true")):
        assert refused(ask(client, b"", **fields)) == (400, "file", "invalid_audio")


def test_a_form_without_a_file_is_told_what_is_missing(client: TestClient) -> None:
    missing = client.post(TRANSCRIPTIONS, files={"other": b"x"})
    assert refused(missing) == (400, "file", "missing_required_parameter")
    text = client.post(TRANSCRIPTIONS, files={"file": (None, "sound")})
    assert refused(text) == (400, "file", "invalid_value")
    json_body = client.post(TRANSCRIPTIONS, json={"file": "x"})
    assert "multipart/form-data" in json_body.json()["error"]["message"]


def test_an_upload_over_the_limit_is_refused(service: Ready, client: TestClient) -> None:
    service.body_bytes = 1000
    assert refused(ask(client, b"a" * 2000)) == (413, None, "request_too_large")
    assert ask(client).status_code == 200


def test_out_of_memory_is_told_and_survived(client: TestClient) -> None:
    for fields in (form(), form(stream="true")):
        answer = ask(client, b"!", **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "out_of_memory")
    assert ask(client).status_code == 200


def test_a_model_of_one_language_translates_nothing() -> None:
    with served(Ready(Model(("en",)))) as client:
        assert refused(ask(client, path=TRANSLATIONS)) == (400, None, "invalid_value")
        assert refused(ask(client, language="fr")) == (400, "language", "invalid_value")
        assert ask(client, language="en").status_code == 200


def test_one_upload_is_heard_after_the_other(service: Ready, client: TestClient) -> None:
    gate = threading.Event()
    service.model.gates = [gate]
    answers: list[int] = []
    asking = [threading.Thread(target=lambda: answers.append(ask(client).status_code)) for _ in range(2)]
    for one in asking:
        one.start()
    until(lambda: "requests_waiting 1.0" in client.get("/metrics").text)
    assert len(service.model.calls) == 1
    gate.set()
    for one in asking:
        one.join(20)
    assert (answers, len(service.model.calls)) == ([200, 200], 2)


PROGRAM = """
import sys, time
from modelgrid.services.service import Options, set_up_logging
from unit.services.whisperer import Model, Ready


class Slow(Model):
    def _segments(self, piece, times_words):
        for segment in super()._segments(piece, times_words):
            time.sleep(0.02)
            yield segment


set_up_logging("info")
Ready(Slow(), Options(name="mini", port=int(sys.argv[-1]))).serve()
"""


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_caller_that_leaves_ends_the_work_within_a_segment(start: Start, tmp_path: Path, stream: str) -> None:
    (tmp_path / "slow.py").write_text(PROGRAM)
    program = start(str(tmp_path / "slow.py"), env={"PYTHONPATH": str(Path(__file__).parents[2])})
    program.wait_for()
    files, fields = {"file": ("a.wav", b"a" * 1000)}, {"stream": stream}
    with httpx.Client(base_url=program.url) as caller:
        if stream == "true":
            with caller.stream("POST", TRANSCRIPTIONS, files=files, data=fields) as answer:
                assert next(answer.iter_lines()).startswith("data: ")
        else:
            with pytest.raises(httpx.ReadTimeout):
                caller.post(TRANSCRIPTIONS, files=files, data=fields, timeout=httpx.Timeout(20, read=2))
    until(lambda: "abandoned_total 1.0" in program.get("/metrics").text)
    (step,) = re.findall(r"caller left: stopped after step (\d+)", "\n".join(program.lines()))
    assert 0 < int(step) < 1000


def test_weights_that_are_none_of_whisper_are_told_apart(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(whisper.NotWhisper) as caught:
            whisper.loadable(tmp_path)
        return str(caught.value)

    assert "no config.json" in said()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "of type llama, not whisper" in said()
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    assert "neither model.bin nor model.safetensors" in said()
    (tmp_path / "model.safetensors").touch()
    assert "lacks tokenizer.json" in said()
    (tmp_path / "model.bin").touch()
    assert whisper.loadable(tmp_path) == tmp_path


def test_the_vocabulary_ends_with_the_timestamps_that_a_checkpoint_leaves_out(tmp_path: Path) -> None:
    added = [{"id": 2, "content": "<|endoftext|>"}, {"id": 3, "content": "<|en|>"}]
    told = {"model": {"vocab": {"a": 0, "": 1}}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    found = whisper.vocabulary(tmp_path, 7)
    assert found == ["a", "", "<|endoftext|>", "<|en|>", "<|0.00|>", "<|0.02|>", "<|0.04|>"]


def test_every_language_has_a_token_that_is_told_from_others() -> None:
    assert all(whisper.LANGUAGE.fullmatch(f"<|{code}|>") for code in NAMES)
    others = ("<|translate|>", "<|0.02|>", "<|endoftext|>", "en", "<|startoflm|>")
    assert not any(whisper.LANGUAGE.fullmatch(token) for token in others)

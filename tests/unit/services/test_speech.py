"""Speech: what is asked, what is answered, and in which pieces. The model is a small one made by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from modelgrid.services.audio import Format
from modelgrid.services.service import Options, Turn
from modelgrid.services.speech import CHARACTERS_LIMIT, OPENAI_VOICES, Speech, find_voice
from unit.services.exchange import DEADLINE_S, Exchange

TWO = "This is the first sentence. And this is the second one."


class Speaker:
    """Says a text by repeating it, and can be held up before a sentence."""

    rate = 16_000
    voices: tuple[str, ...] = ("low", "high")

    def __init__(self) -> None:
        self.said: list[tuple[str, str, float]] = []
        self.opened = threading.Event()
        self.opened.set()
        self.entered = threading.Event()
        self.waits_for = ""

    def count(self, text: str) -> int:
        return len([letter for letter in text if letter.isascii() and letter.isalpha()])

    def say(self, text: str, voice: str, speed: float, turn: Turn) -> bytes:
        if self.waits_for and self.waits_for in text:
            self.entered.set()
            assert self.opened.wait(DEADLINE_S)
        if "break" in text:
            raise RuntimeError("a cable is loose")
        self.said.append((text, voice, speed))
        return text.encode()


class Writing:
    """Writes what was said as it is, between brackets."""

    def __init__(self, form: Format, rate: int) -> None:
        self._head = f"<{form} {rate}>".encode()

    def feed(self, samples: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + samples

    def finish(self) -> bytes:
        return b"<end>"


class Ready(Speech):
    """The service with such a model, as if it had been loaded."""

    def load(self) -> None:
        self.speaker = Speaker()
        self.take(self.speaker, Writing, lambda samples, form, rate: f"<whole {form} {rate}>".encode() + samples)


@pytest.fixture
def service() -> Ready:
    return Ready(Options(name="bard"))


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


def ask(client: TestClient, **body: object) -> Any:
    return client.post("/v1/audio/speech", content=json.dumps({"model": "bard", **body}))


def events(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]


def test_sentences_are_spoken_in_order_and_make_one_sound(service: Ready, client: TestClient) -> None:
    answer = ask(client, input=TWO, voice="high", speed=1.5, response_format="flac")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/flac")
    assert answer.text == "<flac 16000>This is the first sentence.And this is the second one.<end>"
    assert service.speaker.said == [
        ("This is the first sentence.", "high", 1.5),
        ("And this is the second one.", "high", 1.5),
    ]


def test_one_sentence_is_a_whole_file_whose_head_knows_its_length(client: TestClient) -> None:
    assert ask(client, input="Hello.", response_format="wav").text == "<whole wav 16000>Hello."


def test_what_is_left_out_is_as_openai_has_it(service: Ready, client: TestClient) -> None:
    asked = {"voice": None, "speed": None, "response_format": None, "stream_format": None, "instructions": "Whisper."}
    for more in ({}, asked):
        assert ask(client, input="Hello.", **more).headers["content-type"] == "audio/mpeg"
        assert service.speaker.said.pop() == ("Hello.", "low", 1.0)


def test_events_carry_the_sound_and_end_with_usage(client: TestClient) -> None:
    answer = ask(client, input=TWO, stream_format="sse", response_format="pcm")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(answer)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    sound = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert sound == b"<pcm 16000>This is the first sentence.And this is the second one.<end>"
    usage = {"input_tokens": 43, "output_tokens": 0, "total_tokens": 43}
    assert done == {"type": "speech.audio.done", "usage": usage}


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_the_first_sentence_is_heard_before_the_second_is_spoken(service: Ready, stream_format: str) -> None:
    async def scenario() -> None:
        service.load()
        service._loaded = True
        service.speaker.waits_for = "second"
        service.speaker.opened.clear()
        body = {"input": TWO, "stream_format": stream_format}
        async with Exchange(service.app(), "/v1/audio/speech", body) as exchange:
            assert await exchange.more()
            assert [text for text, *_ in service.speaker.said] == ["This is the first sentence."]
            service.speaker.opened.set()
            await exchange.end()
            assert len(service.speaker.said) == 2

    asyncio.run(scenario())


def test_whoever_leaves_ends_it_before_the_next_sentence(service: Ready, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        service.load()
        service._loaded = True
        service.speaker.waits_for = "second"
        service.speaker.opened.clear()
        async with Exchange(service.app(), "/v1/audio/speech", {"input": f"{TWO} {TWO}"}) as exchange:
            assert await exchange.more()
            assert await asyncio.to_thread(service.speaker.entered.wait, DEADLINE_S)
            exchange.leave()
            await exchange.end()
            service.speaker.opened.set()
            assert await service.compute(str, 5) == "5"  # the thread is free again

    asyncio.run(scenario())
    assert len(service.speaker.said) == 2
    assert "caller left: stopped after step 2 of 4" in caplog.text


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "'input' is missing"),
        ({"input": ""}, "input", "it is empty, or holds neither letters nor digits"),
        ({"input": " …! "}, "input", "it is empty, or holds neither letters nor digits"),
        ({"input": "Привет"}, "input", "it holds no character that the model can pronounce"),
        ({"input": "x" * (CHARACTERS_LIMIT + 1)}, "input", "it has 4097 characters, at most 4096 are taken"),
        ({"input": "ab\ud800"}, "input", "cannot read 'input': character 2 is U+D800, one half of a pair"),
        ({"input": ["x"]}, "input", "cannot read 'input': Input should be a valid string"),
        ({"input": "x", "voice": "bob"}, "voice", "cannot speak with voice 'bob': bard has low, high; OpenAI's names"),
        ({"input": "x", "voice": {"id": "bob"}}, "voice", "cannot speak with voice 'bob'"),
        ({"input": "x", "voice": 7}, "voice", "cannot read 'voice'"),
        ({"input": "x", "response_format": "ogg"}, "response_format", "'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'"),
        ({"input": "x", "speed": 0.2}, "speed", "cannot read 'speed'"),
        ({"input": "x", "speed": "quick"}, "speed", "cannot read 'speed'"),
        ({"input": "x", "stream_format": "raw"}, "stream_format", "cannot read 'stream_format'"),
    ],
)
def test_what_cannot_be_spoken(client: TestClient, body: dict[str, object], param: str, message: str) -> None:
    answer = ask(client, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert message in answer.json()["error"]["message"]
    assert ask(client, input="Still here.").status_code == 200


def test_the_longest_text_is_taken(client: TestClient) -> None:
    assert ask(client, input="x" * CHARACTERS_LIMIT).status_code == 200


def test_a_failure_before_the_first_sound_is_an_answer(client: TestClient) -> None:
    answer = ask(client, input="break it.")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "engine_error")
    assert ask(client, input="Still here.").status_code == 200


def test_what_the_model_cannot_pronounce_is_left_out(service: Ready, client: TestClient) -> None:
    assert ask(client, input="Это первое предложение. This is the second sentence.").status_code == 200
    assert [text for text, *_ in service.speaker.said] == ["This is the second sentence."]


def test_voices_are_named_and_openais_stand_for_them_in_order(service: Ready, client: TestClient) -> None:
    told = client.get("/v1/audio/voices").json()
    assert told["voices"] == ["low", "high"]
    assert (told["aliases"]["alloy"], told["aliases"]["ash"], told["aliases"]["ballad"]) == ("low", "high", "low")
    ask(client, input="Hello.", voice={"id": "ash"})
    assert service.speaker.said[-1][1] == "high"


def test_a_voice_of_the_models_own_wins_over_openais() -> None:
    assert find_voice("echo", ("first", "echo")) == "echo"
    assert find_voice("alloy", ("first", "echo")) == "first"
    assert find_voice("Alloy", ("first",)) is None
    assert {find_voice(name, ("only",)) for name in OPENAI_VOICES} == {"only"}


def test_many_voices_are_not_all_named(service: Ready, client: TestClient) -> None:
    service.speaker.voices = tuple(f"v{number}" for number in range(100))
    message = ask(client, input="Hello.", voice="bob").json()["error"]["message"]
    assert "v19 and 80 others (GET /v1/audio/voices);" in message

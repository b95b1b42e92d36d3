"""Real speech behind the official client: transformers' VITS, tiny and made on the spot."""

from __future__ import annotations

import base64
import io
import json
import re
import wave
from collections.abc import Iterator
from typing import Literal

import httpx
import openai
import pytest

from e2e.daemon import Daemon
from e2e.sounds import FIRST_START_S, hear, run_beside, running, started, until_logged

MODEL = "speaker"
SENTENCE = "Hello there"  # a sound of a known length: two tokens to a letter and one more, of 512 samples each
SECONDS = (2 * len(SENTENCE) + 1) * 512 / 16_000
LONG = " ".join(f"This is sentence {number} of many." for number in range(100))

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    model = {"engine": "speech", "source": "stand-in", "aliases": ["tts-1"], "needs": {"memory": "1GiB"}}
    made = started(tmp_path_factory.mktemp("speech"), {MODEL: model})
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


def speak(client: openai.OpenAI, text: str = SENTENCE, form: Format = "wav", voice: str = "alloy") -> bytes:
    return client.audio.speech.create(model=MODEL, input=text, voice=voice, response_format=form).content


@pytest.mark.parametrize(
    ("form", "codec", "rate", "tolerance_s"),
    [
        ("wav", "pcm_s16le", 16_000, 0.0),
        ("flac", "flac", 16_000, 0.0),
        ("mp3", "mp3float", 16_000, 0.0),
        ("opus", "opus", 48_000, 0.001),
        ("aac", "aac", 16_000, 0.2),  # its head can't tell where the sound begins and ends: two or three blocks more
    ],
)
def test_each_format_decodes_to_the_right_length_and_rate(
    daemon: Daemon, client: openai.OpenAI, form: Format, codec: str, rate: int, tolerance_s: float
) -> None:
    heard = hear(daemon, MODEL, speak(client, form=form))
    assert (heard.codec, heard.rate, heard.channels) == (codec, rate, 1)
    assert heard.seconds == pytest.approx(SECONDS, abs=tolerance_s)
    assert 0.01 < heard.peak <= 1.1


def test_pcm_is_at_openais_rate(client: openai.OpenAI) -> None:
    assert len(speak(client, form="pcm")) / 2 / 24_000 == pytest.approx(SECONDS, abs=0.001)


def test_the_usual_format_is_mp3_and_an_alias_speaks_as_well(daemon: Daemon, client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", input=SENTENCE, voice="nova")
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert hear(daemon, MODEL, answer.content).codec == "mp3float"


def test_a_wav_of_one_sentence_says_how_long_it_is(client: openai.OpenAI) -> None:
    with wave.open(io.BytesIO(speak(client))) as sound:
        assert sound.getnframes() / sound.getframerate() == SECONDS


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus"])
def test_sentences_make_one_sound(daemon: Daemon, client: openai.OpenAI, form: Format) -> None:
    sentences = ["This is the first sentence.", "And this is the second one."]
    letters = sum(len(sentence) - 1 for sentence in sentences)  # a full stop isn't spoken
    heard = hear(daemon, MODEL, speak(client, " ".join(sentences), form))
    assert heard.seconds == pytest.approx((2 * letters + 2) * 512 / 16_000, abs=0.15)


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_changes_the_length(daemon: Daemon, client: openai.OpenAI, speed: float) -> None:
    sound = client.audio.speech.create(
        model=MODEL, input=SENTENCE, voice="alloy", response_format="wav", speed=speed
    ).content
    assert hear(daemon, MODEL, sound).seconds == SECONDS / speed


# For models that know no speed: how long a second of a' becomes, and how high it sounds.
_STRETCH = """
import json, numpy
from modelgrid.services.audio import stretch
tone = numpy.sin(numpy.arange(16_000) * 2 * numpy.pi * 440 / 16_000, dtype=numpy.float32).reshape(1, -1)
for speed in (0.25, 0.7, 1.0, 4.0):
    sound = stretch(tone, 16_000, speed)[0]
    highest = numpy.abs(numpy.fft.rfft(sound)).argmax() * 16_000 / len(sound)
    print(json.dumps([speed, len(sound) / 16_000 * speed, highest]))
"""


def test_a_sound_at_another_speed_keeps_its_pitch(daemon: Daemon, client: openai.OpenAI) -> None:
    speak(client)
    for line in run_beside(daemon, MODEL, _STRETCH).splitlines():
        speed, seconds, pitch = json.loads(line)
        assert seconds == pytest.approx(1.0, abs=0.1), speed
        assert pitch == pytest.approx(440, rel=0.02), speed


def test_events_carry_the_same_sound(daemon: Daemon, client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(
        model=MODEL, input=SENTENCE, voice="alloy", response_format="flac", stream_format="sse"
    )
    events = [json.loads(line[6:]) for line in answer.content.decode().splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["speech.audio.delta", "speech.audio.done"]
    assert hear(daemon, MODEL, base64.b64decode(events[0]["audio"])).seconds == SECONDS
    assert events[1]["usage"]["input_tokens"] > 0


def test_the_first_sound_comes_before_the_last_sentence_is_spoken_and_leaving_ends_it(
    daemon: Daemon, client: openai.OpenAI
) -> None:
    speak(client)  # it is loaded
    with client.audio.speech.with_streaming_response.create(model=MODEL, input=LONG, voice="alloy") as answer:
        sound = answer.iter_bytes(1)
        assert next(sound)
        assert running(daemon, MODEL) == 1
    said = until_logged(daemon, MODEL, "caller left")
    found = re.search(r"stopped after step (\d+) of (\d+)$", said)
    assert found is not None, said
    assert int(found[1]) < int(found[2]) == 100
    assert speak(client)


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({"input": ""}, "input", "it is empty"),
        ({"input": "Привет"}, "input", "no character that the model can pronounce"),
        ({"input": "x" * 4097}, "input", "it has 4097 characters, at most 4096 are taken"),
        ({"voice": "bob"}, "voice", "speaker has speaker-0, speaker-1, speaker-2, speaker-3"),
        ({"response_format": "ogg"}, "response_format", "'mp3', 'opus', 'aac', 'flac', 'wav' or 'pcm'"),
        ({"speed": 5.0}, "speed", "less than or equal to 4"),
    ],
)
def test_bad_input_is_told_why_and_the_service_speaks_on(
    daemon: Daemon, client: openai.OpenAI, asked: dict[str, object], param: str, why: str
) -> None:
    speak(client)
    pid = daemon.replicas(MODEL)[0].pid
    body = {"model": MODEL, "input": SENTENCE, "voice": "alloy", **asked}
    answer = httpx.post(f"{daemon.url}/v1/audio/speech", json=body, timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert why in answer.json()["error"]["message"]
    assert speak(client, voice="speaker-3")
    assert daemon.replicas(MODEL)[0].pid == pid

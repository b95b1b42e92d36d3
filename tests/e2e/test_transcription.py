"""Real faster-whisper behind the official client, with a model that is made on the spot and converted as others are."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from e2e.daemon import Daemon, free_port, until
from e2e.sounds import FIRST_START_S, running, started
from modelgrid.services.stand_in.transcription import SENTENCES, TRANSLATED

MODEL = "listener"
SECONDS = 5.3
TEXT = " ".join(SENTENCES[:3])  # one for every two seconds
UPLOAD_LIMIT = 64 << 20

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)

# What is uploaded: a tone, in which the stand-in hears speech as long as it lasts. By name: seconds, codec,
# pictures, samples a second.
SOUNDS: dict[str, tuple[float, str | None, bool, int]] = {
    "speech.wav": (SECONDS, "pcm_s16le", False, 16_000),
    "speech.mp3": (SECONDS, "libmp3lame", False, 16_000),
    "speech.ogg": (SECONDS, "libopus", False, 16_000),
    "speech.webm": (SECONDS, "libopus", False, 16_000),
    "speech.flac": (SECONDS, "flac", False, 16_000),
    "video.mp4": (SECONDS, "aac", True, 16_000),
    "silent.mp4": (1.0, None, True, 16_000),
    "longer.flac": (330.0, "flac", False, 16_000),  # two pieces, and many windows
    "lecture.flac": (1800.0, "flac", False, 16_000),
    "other.mp3": (SECONDS, "libmp3lame", False, 44_100),
    "slow.mkv": (30_000.0, "pcm_u8", False, 1),  # 30 KB in one frame, 1.9 GB as Whisper takes it
}

# PyAV is in the service's environment, and its interpreter makes them.
_MAKE = """
import av, json, math, numpy, sys
for path, (seconds, codec, has_pictures, rate) in json.load(sys.stdin).items():
    with av.open(path, "w") as file:
        shown = file.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p") if has_pictures else None
        heard = file.add_stream(codec, rate=rate) if codec else None
        if shown:
            for _ in range(int(seconds * 10)):
                file.mux(shown.encode(av.VideoFrame(64, 64, "yuv420p")))
            file.mux(shown.encode())
        if heard:
            second = (0.3 * numpy.sin(numpy.arange(rate) * 2 * math.pi * 440 / rate)).astype("float32")
            tone = numpy.tile(second, math.ceil(seconds))[None, : int(seconds * rate)]
            frame = av.AudioFrame.from_ndarray(tone, format="flt", layout="mono")
            frame.sample_rate = rate
            file.mux(heard.encode(frame))
            file.mux(heard.encode())
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    model = {
        "engine": "transcription",
        "source": "stand-in",
        "aliases": ["whisper-1"],
        "args": ["--upload-limit", str(UPLOAD_LIMIT)],
        "needs": {"memory": "1GiB"},
    }
    made = started(tmp_path_factory.mktemp("transcription"), {MODEL: model})
    yield made
    made.end()


@pytest.fixture(scope="module")
def python(daemon: Daemon) -> str:
    """The interpreter of the service's environment, once the model is ready."""
    assert daemon.run("model", "load", MODEL, timeout_s=FIRST_START_S).returncode == 0
    daemon.until_state(MODEL, "ready", FIRST_START_S)
    return service(daemon).cmdline()[0]


@pytest.fixture(scope="module")
def folder(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of SOUNDS."""
    where = tmp_path_factory.mktemp("sounds")
    asked = json.dumps({str(where / name): told for name, told in SOUNDS.items()})
    subprocess.run([python, "-c", _MAKE], input=asked.encode(), check=True, timeout=120)
    return where


@pytest.fixture(scope="module")
def speech(folder: Path) -> Path:
    return folder / "speech.wav"


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


def service(daemon: Daemon) -> psutil.Process:
    return psutil.Process(daemon.replicas(MODEL)[0].pid)


def cues(text: str, point: str) -> list[tuple[float, float, str]]:
    """What a player finds."""
    clock = rf"(\d\d):(\d\d):(\d\d)\{point}(\d\d\d)"
    found = re.findall(rf"^{clock} --> {clock}\n(.+)\n?$", text, re.MULTILINE)
    seconds = [
        [int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in (c[:4], c[4:8])] for c in found
    ]
    return [(start, end, cue[8]) for (start, end), cue in zip(seconds, found, strict=True)]


def test_json_has_the_text_and_the_seconds(client: openai.OpenAI, speech: Path) -> None:
    answer = client.audio.transcriptions.create(model=MODEL, file=speech)
    assert answer.text == TEXT
    assert answer.usage is not None
    assert answer.usage.to_dict() == {"type": "duration", "seconds": 6}


def test_a_file_that_was_put_together_of_several_is_heard_to_its_end(client: openai.OpenAI, folder: Path) -> None:
    joined = (folder / "speech.mp3").read_bytes() + (folder / "other.mp3").read_bytes()
    answer = client.audio.transcriptions.create(model=MODEL, file=("joined.mp3", joined))
    assert answer.usage is not None
    assert answer.usage.to_dict()["seconds"] == math.ceil(2 * SECONDS)


def test_what_is_broken_in_a_file_is_the_files_fault(client: openai.OpenAI, folder: Path) -> None:
    """Whatever stands in it: an answer, or a refusal, and never a failure of the service."""
    dice = random.Random(5)
    for name in ("speech.wav", "speech.mp3", "speech.ogg", "speech.webm", "speech.flac", "video.mp4"):
        for _ in range(10):
            sound = bytearray((folder / name).read_bytes())
            for _ in range(dice.choice((1, 10, 50))):
                sound[dice.randrange(len(sound))] = dice.randrange(256)
            with contextlib.suppress(openai.BadRequestError):
                client.audio.transcriptions.create(model=MODEL, file=(name, bytes(sound)))


def test_a_small_file_does_not_become_gigabytes(client: openai.OpenAI, folder: Path, daemon: Daemon) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        client.audio.transcriptions.create(model=MODEL, file=folder / "slow.mkv")
    assert told.value.code == "invalid_audio"
    most = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service(daemon).pid}/status").read_text())
    assert most is not None
    assert int(most[1]) * 1024 < 1 << 30


def test_text_srt_and_vtt_through_an_alias(client: openai.OpenAI, speech: Path) -> None:
    ask = client.audio.transcriptions.create
    assert ask(model="whisper-1", file=speech, response_format="text") == f"{TEXT}\n"
    srt = ask(model="whisper-1", file=speech, response_format="srt")
    vtt = ask(model="whisper-1", file=speech, response_format="vtt")
    assert re.findall(r"^(\d+)$", srt, re.MULTILINE) == ["1", "2", "3"]
    assert vtt.startswith("WEBVTT\n\n")
    assert cues(srt, ",") == cues(vtt, ".")
    assert cues(srt, ",") == [(0, 2, SENTENCES[0]), (2, 4, SENTENCES[1]), (4, SECONDS, SENTENCES[2])]


def test_verbose_json_has_segments_words_and_the_language(client: openai.OpenAI, speech: Path) -> None:
    answer = client.audio.transcriptions.create(
        model=MODEL, file=speech, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (answer.language, answer.text) == ("english", TEXT)
    assert answer.duration == pytest.approx(SECONDS, abs=0.01)
    assert answer.segments is not None
    assert [segment.text.strip() for segment in answer.segments] == list(SENTENCES[:3])
    assert answer.words is not None
    assert [word.word for word in answer.words] == TEXT.split()
    times = [at for word in answer.words for at in (word.start, word.end)]
    assert times == sorted(times)
    assert 3.0 < times[-1] <= SECONDS
    assert len(set(times)) > len(answer.words) / 2  # they are spread over the sound


def test_a_stream_brings_each_segment_and_then_the_whole(client: openai.OpenAI, speech: Path) -> None:
    events = list(client.audio.transcriptions.create(model=MODEL, file=speech, stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == 3
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.text == "".join(deltas) == TEXT


def test_a_translation_is_one(client: openai.OpenAI, speech: Path) -> None:
    translated = " ".join([TRANSLATED, *SENTENCES[1:3]])
    assert client.audio.translations.create(model=MODEL, file=speech).text == translated
    verbose = client.audio.translations.create(model=MODEL, file=speech, response_format="verbose_json")
    assert (verbose.language, verbose.text) == ("english", translated)
    assert (
        cues(client.audio.translations.create(model=MODEL, file=speech, response_format="srt"), ",")[0][2] == TRANSLATED
    )


def test_a_longer_sound_is_heard_window_by_window(client: openai.OpenAI, folder: Path) -> None:
    longer = folder / "longer.flac"
    srt = client.audio.transcriptions.create(model=MODEL, file=longer, response_format="srt", language="en")
    found = cues(srt, ",")
    assert len(found) > 150
    assert found[-1][1] == pytest.approx(330.0, abs=2.1)
    assert all(one[1] <= other[0] < other[1] for one, other in itertools.pairwise(found))


@pytest.mark.parametrize("name", ["speech.mp3", "speech.ogg", "speech.webm", "speech.flac", "video.mp4"])
def test_audio_of_every_kind_is_heard_and_that_of_videos(client: openai.OpenAI, folder: Path, name: str) -> None:
    assert client.audio.transcriptions.create(model=MODEL, file=folder / name).text == TEXT


def test_what_is_no_sound_is_told_so_and_the_service_lives(
    daemon: Daemon, client: openai.OpenAI, folder: Path, speech: Path
) -> None:
    pid = service(daemon).pid
    uploads: dict[str, Any] = {
        "text.mp3": b"I am no sound at all. " * 100,
        "empty.wav": b"",
        "zeros.wav": bytes(100_000),
        "cut.wav": speech.read_bytes()[:44],
        "silent.mp4": (folder / "silent.mp4").read_bytes(),
    }
    for name, content in uploads.items():
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match="cannot hear the file") as told:
                client.audio.transcriptions.create(model=MODEL, file=(name, content), stream=stream)
            assert (told.value.param, told.value.code) == ("file", "invalid_audio"), name
    assert client.audio.transcriptions.create(model=MODEL, file=speech).text == TEXT
    assert service(daemon).pid == pid


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("language", "klingon"),
        ("response_format", "docx"),
        ("response_format", "diarized_json"),
        ("temperature", 2),
        ("chunking_strategy", {"type": "server_vad", "threshold": 3}),
    ],
)
def test_what_cannot_be_done_is_named(client: openai.OpenAI, speech: Path, field: str, value: Any) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(openai.BadRequestError) as told:
        client.audio.transcriptions.create(model=MODEL, file=speech, **fields)
    assert (told.value.param or "").partition(".")[0] == field
    assert told.value.code == "invalid_value"


def test_silence_is_left_out_where_it_is_asked_for(client: openai.OpenAI, speech: Path) -> None:
    # A tone is no voice.
    assert client.audio.transcriptions.create(model=MODEL, file=speech, chunking_strategy="auto").text == ""


def test_two_gigabytes_are_refused_as_they_come_and_take_no_memory(
    daemon: Daemon, client: openai.OpenAI, speech: Path
) -> None:
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    form = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{MODEL}\r\n'
    form += '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    before = service(daemon).memory_info().rss
    sent, said = 0, b""
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as caller:
        caller.sendall(f"{head}{len(form):x}\r\n{form}\r\n".encode())
        while sent < 2 << 30 and b"request_too_large" not in said:
            if select.select([caller], [], [], 0)[0]:
                said += caller.recv(1 << 16)
            else:
                caller.sendall(chunk)
                sent += 1 << 20
    assert b"HTTP/1.1 413" in said
    assert sent < 1 << 30
    assert service(daemon).memory_info().rss < before + UPLOAD_LIMIT
    assert client.audio.transcriptions.create(model=MODEL, file=speech).text == TEXT


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_caller_that_leaves_stops_the_work(
    daemon: Daemon, client: openai.OpenAI, folder: Path, speech: Path, stream: str
) -> None:
    def steps() -> list[str]:
        return re.findall(r"caller left: stopped after step (\d+)", daemon.run("logs", MODEL).stdout)

    before = len(steps())
    sound = {"file": (folder / "lecture.flac").read_bytes()}
    asked = httpx.Request(
        "POST", f"{daemon.url}/v1/audio/transcriptions", data={"model": MODEL, "stream": stream}, files=sound
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as caller:
        caller.sendall(f"POST {asked.url.path} HTTP/1.1\r\n{head}\r\n".encode() + asked.read())
        if stream == "true":
            while b"transcript.text.delta" not in caller.recv(1 << 16):
                pass
        else:
            until("it is being heard", lambda: running(daemon, MODEL))
    found = until("the work has stopped", lambda: steps()[before:])
    assert int(found[0]) < 800  # of 900 sentences
    assert client.audio.transcriptions.create(model=MODEL, file=speech).text == TEXT


@pytest.fixture(scope="module")
def alone(python: str, folder: Path) -> Iterator[httpx.Client]:
    """The service without the daemon, where the sounds lie, on what the stand-in was converted into."""
    made = (Path(python).parents[1] / "share" / "modelgrid" / "converted").iterdir()
    converted = max(made, key=lambda path: path.stat().st_mtime)
    port = free_port()
    command = [python, "-P", "-m", "modelgrid.services.transcription", "--model", str(converted), "--port", str(port)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELGRID_")}
    with (
        (folder / "alone.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=kept, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http,
    ):

        def is_healthy() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return http.get("/health").status_code == 200
            return False

        try:
            until("it is healthy", is_healthy)
            yield http
        finally:
            process.terminate()


def test_it_runs_alone_on_what_was_converted(alone: httpx.Client, speech: Path) -> None:
    answer = alone.post("/v1/audio/transcriptions", files={"file": speech.read_bytes()})
    assert answer.json()["text"] == TEXT


def test_a_list_of_files_opens_none_of_them(alone: httpx.Client, speech: Path) -> None:
    listed = f"ffconcat version 1.0\nfile '{speech.name}'\n"  # ffmpeg would, where the service runs
    answer = alone.post("/v1/audio/transcriptions", files={"file": listed.encode()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_audio")


def test_memory_that_runs_out_is_an_answer_and_the_next_sound_is_heard(
    alone: httpx.Client, speech: Path, folder: Path
) -> None:
    process = psutil.Process(alone.get("/health").json()["pid"])
    alone.post("/v1/audio/transcriptions", files={"file": speech.read_bytes()})
    held = re.search(r"VmData:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert held is not None
    process.rlimit(psutil.RLIMIT_DATA, (int(held[1]) * 1024 + (30 << 20), psutil.RLIM_INFINITY))
    answer = alone.post("/v1/audio/transcriptions", files={"file": (folder / "lecture.flac").read_bytes()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "out_of_memory")
    answer = alone.post("/v1/audio/transcriptions", files={"file": speech.read_bytes()})
    assert answer.json()["text"] == TEXT

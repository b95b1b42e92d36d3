"""Real music: transformers' MusicGen, tiny and made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import httpx
import openai
import pytest

from e2e.daemon import LOOPBACK, Daemon, until
from e2e.sounds import FIRST_START_S, hear, running, started, until_logged

MODEL = "band"

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    model = {"engine": "music", "source": "stand-in", "needs": {"memory": "1GiB"}}
    made = started(tmp_path_factory.mktemp("music"), {MODEL: model})
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    """OpenAI's, which knows no music but sends what it is told."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


def make(client: openai.OpenAI, **asked: Any) -> bytes:
    body = {"model": MODEL, "prompt": "rain on a tin roof", "duration": 1, **asked}
    return client.post("/audio/music", body=body, cast_to=httpx.Response).content


@pytest.mark.parametrize(("form", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "mp3float")])
@pytest.mark.parametrize("duration_s", [0.333, 2])
def test_a_song_is_as_long_as_asked_for(
    daemon: Daemon, client: openai.OpenAI, form: str, codec: str, duration_s: float
) -> None:
    heard = hear(daemon, MODEL, make(client, duration=duration_s, response_format=form))
    assert (heard.codec, heard.rate, heard.channels) == (codec, 32_000, 1)
    assert heard.seconds == duration_s
    assert 0.01 < heard.peak <= 1.1


def test_a_seed_makes_the_same_song_again_and_another_one_another(client: openai.OpenAI) -> None:
    first, again, other = make(client, seed=7), make(client, seed=7), make(client, seed=8)
    assert first == again
    assert first != other
    assert make(client) != make(client)
    assert make(client, temperature=0) == make(client, temperature=0)


def test_songs_that_are_asked_for_at_once_have_each_its_own_length(daemon: Daemon, client: openai.OpenAI) -> None:
    durations = [0.5, 1, 0.5, 1, 0.5, 1]
    with ThreadPoolExecutor(len(durations)) as pool:
        songs = list(pool.map(lambda duration_s: make(client, duration=duration_s), durations))
    assert [hear(daemon, MODEL, song).seconds for song in songs] == durations
    assert len(set(songs)) == len(songs)


def test_leaving_in_the_middle_of_a_song_ends_the_work(daemon: Daemon, client: openai.OpenAI) -> None:
    make(client)
    leaver = HTTPConnection(LOOPBACK, daemon.port)
    leaver.request("POST", "/v1/audio/music", json.dumps({"model": MODEL, "prompt": "rain", "duration": 30}))
    until("the song is being made", lambda: running(daemon, MODEL) == 1)
    leaver.close()
    assert "of 1503" in until_logged(daemon, MODEL, "caller left: stopped after step")
    assert make(client)


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({"prompt": ""}, "prompt", "'prompt' is empty"),
        ({"prompt": "x" * 600}, "prompt", "'prompt' has 600 tokens, band reads 512 at most"),
        ({"duration": 31}, "duration", "cannot make 31 s of music: band makes 30 s at most"),
        ({"duration": "long"}, "duration", "Input should be a valid number"),
        ({"response_format": "midi"}, "response_format", "'wav', 'mp3' or 'flac'"),
    ],
)
def test_bad_input_is_told_why_and_the_service_plays_on(
    daemon: Daemon, client: openai.OpenAI, asked: dict[str, object], param: str, why: str
) -> None:
    make(client)
    pid = daemon.replicas(MODEL)[0].pid
    with pytest.raises(openai.BadRequestError) as refused:
        make(client, **asked)
    assert refused.value.param == param
    assert why in refused.value.message
    assert make(client)
    assert daemon.replicas(MODEL)[0].pid == pid

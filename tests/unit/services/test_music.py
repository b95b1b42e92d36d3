"""Music: what is asked, what is answered, and what is made together. The model is a small one made by hand."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from starlette.testclient import TestClient

from modelgrid.services.composer import Manner, settings
from modelgrid.services.music import CHARACTERS_LIMIT, TOGETHER_S, Music
from modelgrid.services.service import Options, Turn
from unit.services.exchange import DEADLINE_S, Exchange


class Composer:
    """A song is its prompt and a note for each second."""

    rate = 32_000
    longest_s = 30.0
    prompt_limit = 5

    def __init__(self) -> None:
        self.made: list[tuple[tuple[str, ...], Manner, int | None]] = []
        self.opened = threading.Event()
        self.opened.set()
        self.entered = threading.Event()
        self.steps = 100.0

    def count(self, prompt: str) -> int:
        return len(prompt.split())

    def compose(self, prompts: Sequence[str], manner: Manner, seed: int | None, turn: Turn) -> list[bytes]:
        self.entered.set()
        assert self.opened.wait(DEADLINE_S)
        for done in count(1):
            turn.step(done, 100)
            if done >= self.steps:
                break
        if "break" in prompts:
            raise RuntimeError("a string is torn")
        self.made.append((tuple(prompts), manner, seed))
        return [f"{prompt}{'♪' * round(manner.duration_s)}".encode() for prompt in prompts]


class Ready(Music):
    """The service with such a model, as if it had been loaded."""

    def load(self) -> None:
        self.composer = Composer()
        self.take(self.composer, lambda samples, form, rate: f"<{form} {rate}>".encode() + samples)


@pytest.fixture
def service() -> Ready:
    return Ready(Options(name="band"))


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


def ask(client: TestClient, **body: object) -> Any:
    return client.post("/v1/audio/music", content=json.dumps({"model": "band", **body}))


@pytest.mark.parametrize(
    ("form", "media_type"), [("wav", "audio/wav"), ("mp3", "audio/mpeg"), ("flac", "audio/flac"), (None, "audio/wav")]
)
def test_a_song_is_a_file_of_the_format_asked_for(client: TestClient, form: str | None, media_type: str) -> None:
    answer = ask(client, prompt="rain", duration=3, response_format=form)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.text == f"<{form or 'wav'} 32000>rain♪♪♪"
    assert answer.headers["content-length"] == str(len(answer.content))


def test_the_manner_is_passed_on_and_what_is_left_out_is_the_models(service: Ready, client: TestClient) -> None:
    ask(client, prompt="rain")
    ask(client, prompt="sun", duration=2.5, guidance=4, temperature=0, top_k=5, top_p=0.5, seed=0, n=1)
    ask(client, prompt="sun", duration=None, guidance=None, temperature=None, top_k=None, top_p=None, seed=None, n=None)
    assert service.composer.made == [
        (("rain",), Manner(10.0), None),
        (("sun",), Manner(2.5, guidance=4, temperature=0, top_k=5, top_p=0.5), 0),
        (("sun",), Manner(10.0), None),
    ]


def test_songs_of_one_manner_are_made_together_and_those_with_a_seed_alone(service: Ready, client: TestClient) -> None:
    composer = service.composer
    composer.opened.clear()
    asked = [
        *({"prompt": f"song {number}", "duration": 20} for number in range(TOGETHER_S // 20 + 1)),
        {"prompt": "long", "duration": 21},
        {"prompt": "of another manner", "duration": 20, "top_k": 5},
        {"prompt": "seeded", "duration": 20, "seed": 1},
        {"prompt": "also seeded", "duration": 20, "seed": 1},
    ]
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        first = pool.submit(ask, client, prompt="first", duration=20)
        assert composer.entered.wait(DEADLINE_S)
        rest = [pool.submit(ask, client, **body) for body in asked]
        while service._songs.waiting < len(asked):
            pass
        composer.opened.set()
        assert first.result().text == f"<wav 32000>first{'♪' * 20}"
        for body, answer in zip(asked, rest, strict=True):
            assert answer.result().text.startswith(f"<wav 32000>{body['prompt']}♪♪")
    assert sorted(len(prompts) for prompts, *_ in composer.made) == [1, 1, 1, 1, 1, 1, TOGETHER_S // 20]
    assert all(len(prompts) == 1 for prompts, _, seed in composer.made if seed is not None)


def test_whoever_leaves_ends_the_work_at_its_next_step(service: Ready, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario() -> None:
        service.load()
        service._loaded = True
        service.composer.steps = math.inf
        async with Exchange(service.app(), "/v1/audio/music", {"prompt": "rain"}) as exchange:
            assert await asyncio.to_thread(service.composer.entered.wait, DEADLINE_S)
            exchange.leave()
            await exchange.end()

    asyncio.run(scenario())
    assert service.composer.made == []
    assert "caller left: stopped after step" in caplog.text


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "prompt", "'prompt' is missing"),
        ({"prompt": " "}, "prompt", "'prompt' is empty (describe it: genre, instruments, mood, tempo)"),
        ({"prompt": "\udc00"}, "prompt", "cannot read 'prompt': character 0 is U+DC00, one half of a pair"),
        ({"prompt": "a b c d e f"}, "prompt", "'prompt' has 6 tokens, band reads 5 at most"),
        ({"prompt": "x" * (CHARACTERS_LIMIT + 1)}, "prompt", "'prompt' has 4097 characters, at most 4096 are read"),
        ({"prompt": "x", "duration": 30.1}, "duration", "cannot make 30.1 s of music: band makes 30 s at most"),
        ({"prompt": "x", "duration": 0}, "duration", "cannot read 'duration'"),
        ({"prompt": "x", "response_format": "opus"}, "response_format", "'wav', 'mp3' or 'flac'"),
        ({"prompt": "x", "seed": -1}, "seed", "cannot read 'seed'"),
        ({"prompt": "x", "seed": 2**63}, "seed", "cannot read 'seed'"),
        ({"prompt": "x", "guidance": 0}, "guidance", "cannot read 'guidance'"),
        ({"prompt": "x", "temperature": -0.1}, "temperature", "cannot read 'temperature'"),
        ({"prompt": "x", "top_k": 0}, "top_k", "cannot read 'top_k'"),
        ({"prompt": "x", "top_p": 0}, "top_p", "cannot read 'top_p'"),
        ({"prompt": "x", "n": 2}, "n", "cannot read 'n'"),
    ],
)
def test_what_cannot_be_made(client: TestClient, body: dict[str, object], param: str, message: str) -> None:
    answer = ask(client, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert message in answer.json()["error"]["message"]
    assert ask(client, prompt="still here", duration=1).status_code == 200


@pytest.mark.parametrize("duration", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_duration_that_is_no_number_is_refused(client: TestClient, duration: bytes) -> None:
    answer = client.post("/v1/audio/music", content=b'{"prompt": "x", "duration": %b}' % duration)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "duration")


def test_a_song_that_fails_does_not_end_the_service(client: TestClient) -> None:
    answer = ask(client, prompt="break")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "engine_error")
    assert ask(client, prompt="still here", duration=1).status_code == 200


@pytest.mark.parametrize(
    ("manner", "told"),
    [
        (Manner(1.0), {"do_sample": True}),
        (Manner(1.0, temperature=0, top_k=5, guidance=1.0), {"do_sample": False, "guidance_scale": 1.0}),
        (Manner(1.0, temperature=1e-40), {"do_sample": False}),
        (
            Manner(1.0, guidance=4.0, temperature=0.5, top_k=5, top_p=0.9),
            {"do_sample": True, "guidance_scale": 4.0, "temperature": 0.5, "top_k": 5, "top_p": 0.9},
        ),
    ],
)
def test_a_manner_is_told_as_transformers_names_it(manner: Manner, told: dict[str, object]) -> None:
    assert settings(manner) == told

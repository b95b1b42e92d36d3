"""Real pictures: a FLUX in small, made on the spot, drawn by diffusers."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from e2e.daemon import Daemon, until
from e2e.looking import FIRST_START_S, leaving, look, metric, png, size_of_png, started, until_logged

MODEL = "painter"

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    model = {"engine": "images", "source": "stand-in", "needs": {"memory": "2GiB"}}
    made = started(tmp_path_factory.mktemp("images"), {MODEL: model})
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


def draw(client: openai.OpenAI, prompt: str = "a lighthouse", size: str = "64x64", **more: Any) -> list[bytes]:
    extra = {name: more.pop(name) for name in ("seed", "steps") if name in more}
    answer = client.images.generate(model=MODEL, prompt=prompt, size=size, extra_body=extra, **more)
    assert answer.size == size
    return [base64.b64decode(item.b64_json or "") for item in answer.data or []]


def test_a_picture_is_of_the_size_asked_for(daemon: Daemon, client: openai.OpenAI) -> None:
    (picture,) = draw(client, size="128x96")
    assert size_of_png(picture) == (128, 96)
    assert len(set(look(daemon, MODEL, picture).halves[0])) > 16


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_picture_is_of_the_format_asked_for(daemon: Daemon, client: openai.OpenAI, form: str) -> None:
    (picture,) = draw(client, output_format=form)
    seen = look(daemon, MODEL, picture)
    assert (seen.format.lower(), seen.width, seen.height) == (form, 64, 64)


def test_a_seed_draws_the_same_picture_alone_and_among_others(daemon: Daemon, client: openai.OpenAI) -> None:
    (alone,) = draw(client, seed=7)
    assert draw(client, seed=7) == [alone]
    assert draw(client, seed=8) != [alone]
    calls = metric(daemon, MODEL, "modelgrid_service_batch_size_count")
    with ThreadPoolExecutor(9) as pool:
        others = [pool.submit(draw, client, f"number {number}", seed=number) for number in range(8)]
        among = pool.submit(draw, client, seed=7)
        drawn = [other.result()[0] for other in others]
    assert metric(daemon, MODEL, "modelgrid_service_batch_size_count") < calls + 9
    assert len({alone, *drawn}) == 9
    one, other = (look(daemon, MODEL, picture).halves[0] for picture in (alone, among.result()[0]))
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 2


def test_several_pictures_in_one_answer(client: openai.OpenAI) -> None:
    assert len(set(draw(client, n=3))) == 3


def test_a_streamed_picture_shows_itself_on_its_way(client: openai.OpenAI) -> None:
    stream = client.images.generate(model=MODEL, prompt="a lighthouse", size="64x64", stream=True, partial_images=2)
    events = list(stream)
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    pictures = [base64.b64decode(event.b64_json) for event in events]
    assert [size_of_png(picture) for picture in pictures] == [(64, 64)] * 3
    assert len(set(pictures)) == 3


def test_an_edit_is_as_large_as_the_picture(client: openai.OpenAI) -> None:
    answer = client.images.edit(model=MODEL, prompt="at night", image=("a.png", png(96, 64)))
    (item,) = answer.data or []
    edited = base64.b64decode(item.b64_json or "")
    assert size_of_png(edited) == (96, 64)
    assert edited != png(96, 64)


def test_what_a_mask_does_not_name_stays_as_it_was(daemon: Daemon, client: openai.OpenAI) -> None:
    picture, mask = png(64, 64), png(64, 64, clear_left=True)
    answer = client.images.edit(model=MODEL, prompt="at night", image=("a.png", picture), mask=("m.png", mask))
    (item,) = answer.data or []
    before, after = (look(daemon, MODEL, seen) for seen in (picture, base64.b64decode(item.b64_json or "")))
    assert after.halves[1] == before.halves[1]
    assert after.halves[0] != before.halves[0]


@pytest.mark.parametrize("more", [{}, {"stream": True, "partial_images": 1}], ids=["whole", "streamed"])
def test_leaving_in_the_middle_of_a_picture_ends_the_work(
    daemon: Daemon, client: openai.OpenAI, more: dict[str, object]
) -> None:
    draw(client)
    steps = 190 if more else 200
    body = {"model": MODEL, "prompt": "rain", "size": "512x512", "steps": steps, **more}
    with contextmanager(leaving)(daemon, "/v1/images/generations", body):
        until("it is drawn", lambda: metric(daemon, MODEL, "modelgrid_service_requests_running") == 1)
    stopped = until_logged(daemon, MODEL, rf"caller left: stopped after step (\d+) of {steps}")
    assert int(stopped[1]) < steps
    until("nothing is drawn", lambda: metric(daemon, MODEL, "modelgrid_service_requests_running") == 0)
    assert draw(client)


@pytest.mark.parametrize(
    ("asked", "param", "why"),
    [
        ({"size": "65x64"}, "size", "multiples of 16"),
        ({"size": "8192x8192"}, "size", "pixels in all"),
        ({"prompt": "x" * 300}, "prompt", "it has 302 tokens, the model reads 256"),
        ({"output_format": "gif"}, "output_format", "'png', 'jpeg' or 'webp'"),
        ({"background": "transparent"}, "background", "cannot draw a transparent background"),
        ({"n": 11}, "n", "less than or equal to 10"),
    ],
)
def test_bad_input_is_told_why_and_the_service_draws_on(
    daemon: Daemon, client: openai.OpenAI, asked: dict[str, Any], param: str, why: str
) -> None:
    draw(client)
    pid = daemon.replicas(MODEL)[0].pid
    with pytest.raises(openai.BadRequestError) as refused:
        draw(client, **asked)
    assert refused.value.param == param
    assert why in refused.value.message
    assert draw(client)
    assert daemon.replicas(MODEL)[0].pid == pid


def test_what_is_no_picture_is_told_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="it is no picture") as refused:
        client.images.edit(model=MODEL, prompt="x", image=("a.png", b"no picture"))
    assert refused.value.code == "invalid_image_file"
    half = png(64, 64)[:200]
    with pytest.raises(openai.BadRequestError, match="it is no picture"):
        client.images.edit(model=MODEL, prompt="x", image=("a.png", half))
    head = struct.pack("<2sIHHI", b"BM", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0)
    with pytest.raises(openai.BadRequestError, match="send png, jpeg or webp"):  # a bitmap of Windows', and a good one
        client.images.edit(model=MODEL, prompt="x", image=("a.bmp", head + b"\0\0\xff\0"))
    assert draw(client)


def test_a_strength_that_asks_for_millions_of_steps_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="is the least") as refused:
        client.images.edit(model=MODEL, prompt="x", image=("a.png", png(64, 64)), extra_body={"strength": 1e-300})
    assert refused.value.param == "strength"
    assert draw(client)


def test_prompts_are_not_logged(daemon: Daemon, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        draw(client, prompt="topsecret " * 100)
    draw(client, prompt="topsecret")
    assert "topsecret" not in daemon.run("logs", MODEL).stdout

"""The images service: what it reads, what it answers, what is drawn together, and that nobody draws for nobody."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from modelgrid.services import painter, pictures
from modelgrid.services.errors import ServiceError
from modelgrid.services.images import Images, told_by
from modelgrid.services.service import Options
from unit.services.conftest import until
from unit.services.drawing import DrawingPipeline


class Ready(Images):
    """The service with such a pipeline, as if it had been loaded."""

    def load(self) -> None:
        self.pipeline = DrawingPipeline()
        self.take(self.pipeline, dice=list)


@pytest.fixture
def service() -> Ready:
    return Ready(Options(name="flux"))


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        until(lambda: client.get("/health").status_code == 200)
        yield client


def ask(client: TestClient, **body: object) -> Any:
    return client.post("/v1/images/generations", content=json.dumps({"prompt": "a cat", **body}))


def drawn(answer: Any) -> list[str]:
    return [base64.b64decode(item["b64_json"]).decode() for item in answer.json()["data"]]


def test_a_picture_of_the_size_asked_for_in_openais_shape(client: TestClient, service: Ready) -> None:
    answer = ask(client, size="64x128", seed=7)
    assert drawn(answer) == ["PNG a cat 7"]
    told = answer.json()
    assert told.pop("created") > 0
    assert told == {
        "data": [{"b64_json": base64.b64encode(b"PNG a cat 7").decode(), "seed": 7}],
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": "64x128",
        "usage": {
            "input_tokens": 4,
            "output_tokens": 0,
            "total_tokens": 4,
            "input_tokens_details": {"text_tokens": 4, "image_tokens": 0},
        },
    }
    (call,) = service.pipeline.calls
    assert (call["width"], call["height"], call["num_inference_steps"]) == (64, 128, 28)
    assert (call["guidance_scale"], call["negative_prompt"]) == (3.5, None)


def test_several_pictures_have_seeds_of_their_own(client: TestClient) -> None:
    assert drawn(ask(client, n=3, seed=5)) == ["PNG a cat 5", "PNG a cat 6", "PNG a cat 7"]
    once, again = (ask(client).json()["data"][0]["seed"] for _ in range(2))
    assert once != again


def test_formats_and_urls(client: TestClient) -> None:
    assert drawn(ask(client, output_format="jpeg", output_compression=40, seed=1)) == ["JPEG a cat 1 40"]
    url = ask(client, output_format="webp", response_format="url", seed=1).json()["data"][0]["url"]
    assert url == "data:image/webp;base64," + base64.b64encode(b"WEBP a cat 1 100").decode()


def test_null_is_as_good_as_nothing(client: TestClient) -> None:
    assert drawn(ask(client, n=None, size=None, quality=None, stream=None, output_format=None, seed=2)) == [
        "PNG a cat 2"
    ]


def test_quality_is_time_and_steps_win_over_it(client: TestClient, service: Ready) -> None:
    for asked in ({"quality": "low"}, {"quality": "hd"}, {"quality": "low", "steps": 3}, {"guidance": 0.5}):
        assert ask(client, **asked).status_code == 200
    assert [call["num_inference_steps"] for call in service.pipeline.calls] == [14, 42, 3, 28]
    assert service.pipeline.calls[-1]["guidance_scale"] == 0.5


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter", "'prompt' is missing"),
        ({"prompt": ""}, "prompt", "invalid_value", "cannot read 'prompt'"),
        ({"prompt": "w " * 30}, "prompt", "context_length_exceeded", "it has 32 tokens, the model reads 20"),
        ({"negative_prompt": "w " * 30}, "negative_prompt", "context_length_exceeded", "32 tokens"),
        ({"n": 11}, "n", "invalid_value", "cannot read 'n'"),
        ({"size": "large"}, "size", "unsupported_size", "cannot read the size 'large'"),
        ({"size": "100x64"}, "size", "unsupported_size", "multiples of 16 (try 96x64)"),
        ({"size": "48x64"}, "size", "unsupported_size", "a side has 64 pixels at least"),
        ({"size": "4096x2048"}, "size", "unsupported_size", "4194304 pixels in all"),
        ({"output_format": "gif"}, "output_format", "invalid_value", "cannot read 'output_format'"),
        ({"background": "transparent"}, "background", "unsupported_by_model", "cannot draw a transparent background"),
        ({"steps": 0}, "steps", "invalid_value", "cannot read 'steps'"),
        ({"seed": -1}, "seed", "invalid_value", "cannot read 'seed'"),
    ],
)
def test_what_cannot_be_drawn(client: TestClient, body: dict[str, Any], param: str, code: str, message: str) -> None:
    answer = ask(client, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert message in error["message"]
    assert ask(client).status_code == 200


def test_what_waits_and_is_alike_is_drawn_together(client: TestClient, service: Ready) -> None:
    pipeline = service.pipeline
    pipeline.gate.clear()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(ask, client, prompt="first", seed=1)
        assert pipeline.entered.wait(10)
        alike = [pool.submit(ask, client, prompt=f"p{seed}", seed=seed) for seed in (2, 3)]
        other = pool.submit(ask, client, prompt="other", seed=4, steps=3)
        until(lambda: service._drawing.waiting == 3)
        pipeline.gate.set()
        assert [drawn(answer.result()) for answer in (first, *alike, other)] == [
            ["PNG first 1"],
            ["PNG p2 2"],
            ["PNG p3 3"],
            ["PNG other 4"],
        ]
    assert sorted(len(call["prompt"]) for call in pipeline.calls) == [1, 1, 2]


def test_a_batch_that_is_too_large_for_the_memory_is_drawn_in_smaller_ones(client: TestClient, service: Ready) -> None:
    service.pipeline.room = 2
    assert len(drawn(ask(client, n=7))) == 7
    assert [len(call["prompt"]) for call in service.pipeline.calls] == [4, 2, 2, 2, 1]
    service.pipeline.room = 0
    error = ask(client)
    assert (error.status_code, error.json()["error"]["code"]) == (507, "out_of_memory")


def test_a_streamed_picture_comes_as_openais_events(client: TestClient, service: Ready) -> None:
    answer = ask(client, stream=True, seed=3, size="64x64")
    assert answer.headers["content-type"].startswith("text/event-stream")
    kind, data = answer.text.strip().split("\n")
    assert kind == "event: image_generation.completed"
    told = json.loads(data.removeprefix("data: "))
    assert (told["type"], told["size"], told["output_format"]) == ("image_generation.completed", "64x64", "png")
    assert base64.b64decode(told["b64_json"]) == b"PNG a cat 3"
    assert told["usage"]["total_tokens"] == 4


def test_what_tells_in_another_thread_is_heard_at_once_and_its_error_is_raised_here() -> None:
    heard = threading.Event()

    def work(tell: Any) -> None:
        tell(1)
        assert heard.wait(10)
        tell(2)
        raise ValueError("broken")

    told = told_by(work)
    assert next(told) == 1
    heard.set()
    assert next(told) == 2
    with pytest.raises(ValueError, match="broken"):
        next(told)


def test_pictures_to_change_come_as_a_form(client: TestClient) -> None:
    answer = client.post("/v1/images/edits", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_content_type")
    answer = client.post("/v1/images/edits", files={"image": ("a.png", b"x")}, data={"n": "2"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
    answer = client.post("/v1/images/edits", files={"other": ("a.png", b"x")}, data={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


def test_one_upload_at_a_time_is_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    active, most = 0, 0

    def read(*_: object) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.02)  # as reading takes a while
        active -= 1
        raise ServiceError(400, "it is no picture")

    monkeypatch.setattr(painter.Painter, "strength", lambda *_, **__: 0.6)
    monkeypatch.setattr(pictures, "read", read)
    with ThreadPoolExecutor(8) as pool:
        sent = [
            pool.submit(client.post, "/v1/images/edits", files={"image": b"x"}, data={"prompt": "x"}) for _ in range(8)
        ]
        assert {answer.result().status_code for answer in sent} == {400}
    assert most == 1

"""The door before `transformers serve`: what may come in, and what a caller may not have opened."""

from __future__ import annotations

import asyncio
import base64
import json
from io import BytesIO
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from modelgrid.services.transformers_serve import BODY_BYTES, Door


class Picture:
    """What Pillow makes of a file, as far as it is asked: here the file says what it is."""

    def __init__(self, content: bytes) -> None:
        kind, _, size = content.decode("latin-1").partition(" ")
        if kind != "picture":
            raise OSError("cannot identify image file")
        self.width, self.height = (int(number) for number in size.split("x"))

    def __enter__(self) -> Picture:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def load(self) -> None:
        if self.width == 0:
            raise OSError("image file is truncated")


def picture(content: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(content.encode()).decode()}"


SMALL = picture("picture 4x3")


def client(key: str | None = None) -> TestClient:
    app = FastAPI()

    @app.post("/{path:path}")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    def open_picture(content: BytesIO) -> Picture:
        return Picture(content.read())

    return TestClient(Door(app, key, open_picture))


def chat(*parts: object) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "see"}, {"role": "user", "content": list(parts)}]}


def refused(body: object, path: str = "/v1/chat/completions") -> tuple[int, str, str, str]:
    answer = client().post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["code"], error["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "http://example.com/a.png"}]},
        chat({"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": SMALL}}),
        chat({"type": "image_url", "image_url": SMALL}, {"type": "image_url", "image_url": {"url": SMALL}}),
        chat({"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}}),
        chat({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aaaa"}}),
    ],
)
def test_what_comes_with_the_request_goes_on_as_it_came(body: dict[str, Any]) -> None:
    answer = client().post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()) == (200, body)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "pictures/a.png",
        "DATA:image/png;base64,aaaa",
        "data:text/plain;base64,aaaa",
        "/9j/4AAQSkZJRg==",  # base64 of a JPEG, and a path
        "",
        None,
        7,
    ],
)
def test_no_address_and_no_file_is_opened(url: object) -> None:
    place = "messages.1.content.0"
    for field in ("image_url", "video_url", "audio_url"):
        for given in (url, {"url": url}):
            status, param, code, message = refused(chat({"type": field, field: given}))
            assert (status, param, code) == (400, f"{place}.{field}", f"invalid_{field}")
            assert "send it as a data URL" in message
    asked = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}
    assert refused(asked, "/v1/responses")[:2] == (400, "input.0.content.0.image_url")
    assert refused({"input": [{"type": "input_image", "image_url": url}]}, "/v1/responses")[0] == 400


def test_the_type_of_a_part_and_its_depth_hide_nothing() -> None:
    hidden = {"type": "text", "text": "x", "more": [[{"image_url": {"url": "/etc/passwd"}}]]}
    assert refused(chat(hidden))[:2] == (400, "messages.1.content.0.more.0.0.image_url")
    assert refused({"input": [{"type": "message", "content": chat(hidden)}]}, "/v1/responses")[0] == 400


@pytest.mark.parametrize("given", ["/etc/passwd", {"data": "/etc/passwd"}, {"data": "aaaa", "format": "x;,http://"}])
def test_audio_of_no_format_may_be_a_path(given: object) -> None:
    assert refused(chat({"type": "input_audio", "input_audio": given}))[1:3] == (
        "messages.1.content.0.input_audio",
        "invalid_value",
    )


@pytest.mark.parametrize(("asked", "comes"), [({}, False), ({"stream": None}, False), ({"stream": True}, True)])
def test_a_response_is_streamed_to_who_asks_for_it(asked: dict[str, Any], comes: bool) -> None:
    answer = client().post("/v1/responses", json={"input": "hello", **asked})
    assert answer.json() == {"input": "hello", "stream": comes}


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("data:image/png;base64,????", "invalid_base64_image", "it is not base64"),
        ("data:image/png;base64,", "invalid_image", "it is no PNG, JPEG, WEBP, GIF, or is damaged"),
        (picture("a song"), "invalid_image", "it is no PNG"),
        (picture("picture 0x5"), "invalid_image", "or is damaged"),
        (picture("picture 100000x1000"), "image_too_large", "it has 100000 by 1000 pixels, at most 64,000,000"),
    ],
)
def test_what_is_no_picture_is_told_so(url: str, code: str, message: str) -> None:
    status, param, said_code, said = refused(chat({"type": "image_url", "image_url": {"url": url}}))
    assert (status, param, said_code) == (400, "messages.1.content.0.image_url", code)
    assert message in said


def test_pictures_that_are_too_large_together_are_refused() -> None:
    parts = [{"type": "image_url", "image_url": {"url": picture("picture 8000x8000")}}] * 4
    assert client().post("/v1/chat/completions", json=chat(*parts[:3])).status_code == 200
    status, _, code, said = refused(chat(*parts))
    assert (status, code) == (400, "image_too_large")
    assert "192,000,000 of all in a request" in said


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"{", "is not JSON"), (b"[]", "is not a JSON object"), (b"[" * 200_000, "nested too deeply")],
)
def test_a_body_that_cannot_be_read(body: bytes, message: str) -> None:
    status, _, _, said = refused(body)
    assert status == 400
    assert message in said


def test_a_body_that_is_too_large() -> None:
    answer = client().post("/v1/chat/completions", content=b"x" * (BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def heard_behind_the_door() -> list[Message]:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"messages"', "more_body": True},
        {"type": "http.request", "body": b": []}", "more_body": False},
        {"type": "http.disconnect"},
    ]
    heard: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        heard.extend([await receive(), await receive()])

    scope = {"type": "http", "path": "/v1/chat/completions", "headers": []}
    await Door(app, None)(scope, receive, send)
    return heard


def test_who_stands_behind_the_door_hears_that_a_caller_leaves() -> None:
    body, left = asyncio.run(heard_behind_the_door())
    assert body == {"type": "http.request", "body": b'{"messages": []}', "more_body": False}
    assert left == {"type": "http.disconnect"}


def test_only_who_has_the_key_comes_in() -> None:
    behind = client("secret")
    body: dict[str, Any] = {"messages": []}
    assert behind.post("/v1/chat/completions", json=body).json()["error"]["code"] == "invalid_api_key"
    wrong = {"authorization": "Bearer wrong"}
    assert behind.post("/v1/completions", json=body, headers=wrong).status_code == 401
    right = {"authorization": "Bearer secret"}
    assert behind.post("/v1/completions", json=body, headers=right).status_code == 200
    assert behind.get("/health").status_code == 200

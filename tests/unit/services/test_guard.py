"""What every service does with a request before its own code sees it, and with what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import UploadFile
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field, field_validator
from starlette.requests import Request
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message
from starlette.websockets import WebSocket

from modelgrid.services.service import Options, Service


class Asked(BaseModel):
    text: str
    count: Annotated[int, Field(ge=1, le=10)] = 1
    size: str = "auto"

    @field_validator("size")
    @classmethod
    def _known(cls, size: str) -> str:
        if size != "auto":
            raise ValueError(f"{size!r} is no size (use auto)")
        return size


class Echo(Service):
    """Says what it was asked."""

    name = "echo"
    body_bytes = 1000

    def load(self) -> None:
        """Nothing to load."""

    def routes(self) -> list[BaseRoute]:
        return [
            APIRoute("/v1/echo", self.echo, methods=["POST"]),
            APIRoute("/v1/upload", self.upload, methods=["POST"]),
            APIRoute("/v1/form", self.form, methods=["POST"]),
            WebSocketRoute("/v1/talk", self.talk),
            APIRoute("/v1/things/{id}", self.thing, methods=["GET"]),
        ]

    async def echo(self, request: Request, asked: Asked) -> dict[str, str]:
        return {"text": await self.run(request, lambda _: asked.text * asked.count)}

    async def upload(self, file: UploadFile) -> dict[str, int]:
        return {"bytes": len(await file.read())}

    async def form(self, request: Request) -> dict[str, int]:
        return {"fields": len(await request.form())}

    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    async def thing(self, id: str) -> dict[str, str]:
        return {"id": id}


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Echo(Options(name="mini")).app(), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


def error_of(answer: Any) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({}, "text", "missing_required_parameter", "'text' is missing"),
        ({"text": 1}, "text", "invalid_value", "cannot read 'text': Input should be a valid string"),
        ({"text": "a", "count": 11}, "count", "invalid_value", "cannot read 'count': Input should be less than"),
        ({"text": "a", "size": "big"}, "size", "invalid_value", "cannot read 'size': 'big' is no size (use auto)"),
        ([], None, None, "cannot read the request's body: it is not a JSON object"),
    ],
)
def test_a_wrong_field_is_named(client: TestClient, body: object, param: str, code: str, message: str) -> None:
    answer = client.post("/v1/echo", json=body)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"].startswith(message)


def test_a_body_that_is_no_json_or_none_is_told_so(client: TestClient) -> None:
    broken = client.post("/v1/echo", content=b'{"text": ', headers={"content-type": "application/json"})
    assert (broken.status_code, "its body is not JSON" in error_of(broken)["message"]) == (400, True)
    empty = client.post("/v1/echo")
    assert (empty.status_code, error_of(empty)["message"]) == (400, "cannot read the request's body: there is none")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
def test_json_that_is_not_said_to_be_json_is_read(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/v1/echo", content=b'{"text": "ab", "user": "x"}', headers=headers).json() == {"text": "ab"}


def test_a_body_that_is_too_large_is_refused_when_it_is_announced_and_when_it_comes(client: TestClient) -> None:
    announced = client.post("/v1/echo", json={"text": "a" * 1001})
    assert (announced.status_code, error_of(announced)["code"]) == (413, "request_too_large")
    assert "larger than 1000 bytes" in error_of(announced)["message"]

    def pieces() -> Iterator[bytes]:
        for _ in range(11):
            yield b"a" * 100

    came = client.post("/v1/echo", content=pieces())
    assert came.status_code == 413
    uploaded = client.post("/v1/upload", files={"file": b"a" * 2000})
    assert uploaded.status_code == 413
    assert client.post("/v1/upload", files={"file": b"a" * 500}).json() == {"bytes": 500}


def test_a_file_that_is_missing_is_named(client: TestClient) -> None:
    assert error_of(client.post("/v1/upload", data={"x": "y"}))["param"] == "file"


def test_requests_are_counted_by_route_and_not_by_id(client: TestClient) -> None:
    for number in range(3):
        assert client.get(f"/v1/things/{number}").json() == {"id": str(number)}
    client.post("/v1/echo", json={})
    client.get("/nothing")
    page = client.get("/metrics").text
    counted = {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "modelgrid_service_requests_total"
    }
    assert counted == {("/v1/things/{id}", "200"): 3, ("/v1/echo", "400"): 1, ("other", "404"): 1}


def test_a_caller_who_leaves_amid_an_upload_is_no_failure(client: TestClient) -> None:
    coming: list[Message] = [
        {"type": "http.request", "body": b"--b\r\n", "more_body": True},
        {"type": "http.disconnect"},
    ]
    told: list[Message] = []

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        told.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/v1/form", "headers": headers, "query_string": b""}
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]  # as ASGI has it
    assert told[0]["status"] == 499
    assert 'requests_total{path="/v1/form",status="499"} 1.0' in client.get("/metrics").text


def test_a_socket_asks_for_the_key_as_well() -> None:
    with TestClient(Echo(Options(name="mini")).app("secret")) as client:
        while client.get("/health").status_code != 200:
            pass
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/v1/talk"):
            pass
        assert refused.value.status_code == 401
        with client.websocket_connect("/v1/talk", headers={"authorization": "Bearer secret"}) as socket:
            assert socket.receive_text() == "hello"

"""The control API with its fakes, asked in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx

from modelgrid.api import create_app
from modelgrid.api.fake import FakeControl
from modelgrid.spec import ModelStatus, ReplicaStatus, Status
from modelgrid.store import MemoryStore

SLASHES = "Qwen/Qwen2.5-7B-Instruct"

MODEL = ModelStatus(
    name="mine",
    engine="custom",
    source=None,
    aliases=("gpt-4o-mini",),
    state="cold",
    why="no request yet",
    memory_bytes=2**30,
    waiting=0,
    in_flight=0,
    last_used=0.0,
    min=0,
    max=1,
    wish=None,
    retry_at=None,
)
REPLICA = ReplicaStatus(
    id="mine-1",
    model="mine",
    state="ready",
    since=90.0,
    why="answered its first request",
    memory_bytes=2**30,
    resident_bytes=None,
    in_flight=2,
    url="http://127.0.0.1:4000/v1",
    pid=77,
    step=None,
    phases={"spawn": 0.25},
)
OTHERS = replace(REPLICA, id="other-1", model=SLASHES)
STATUS = Status(
    version="0.1.0",
    now=100.0,
    started=10.0,
    config=None,
    config_error=None,
    memory_bytes=2**34,
    memory_source="measured",
    memory_planned_bytes=2**30,
    table=3,
    workers=1,
    address="http://127.0.0.1:9000",
    models=(MODEL, replace(MODEL, name=SLASHES, aliases=())),
    replicas=(REPLICA, OTHERS),
)


class Api:
    """The app with its fakes, asked one request at a time."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.control = FakeControl(STATUS)
        self.store = store or MemoryStore()
        self.app = create_app(self.control, self.store)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://modelgrid") as http:
                return await http.request(method, f"/control/v1{path}", **request)

        return asyncio.run(ask())

    def refusal(self, method: str, path: str, **request: Any) -> tuple[int, str, str, str]:
        """Status, type, code and message of an answer that has the one shape of errors, and nothing else."""
        response = self.ask(method, path, **request)
        body = response.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "code"}
        error = body["error"]
        return response.status_code, error["type"], error["code"], error["message"]

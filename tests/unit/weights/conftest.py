"""A model hub on loopback, which serves what a test gives it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Hub:
    """The hub's content, and how it is to fail."""

    url: str = ""
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)  # without the token "good"
    claimed: dict[str, int] = field(default_factory=dict)  # sizes that it claims, by file
    claimed_sha256: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)  # of models, by dtype, as the hub counts them
    revision: str = "0123456789abcdef0123456789abcdef01234567"
    knows_ranges: bool = True
    breaks_at: dict[str, int] = field(default_factory=dict)  # close the connection after so many bytes, by file
    status: int | None = None  # answer everything with it
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range


class Handler(BaseHTTPRequestHandler):
    """The part of the hub's API that pulling needs."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if self.hub.status is not None:
            return self.send(self.hub.status, b"{}", {}, with_body)
        if path.startswith("/api/models/"):
            return self.model(path.removeprefix("/api/models/").partition("/revision/")[0], with_body)
        model, _, rest = path.removeprefix("/").partition("/resolve/")
        return self.file(model, rest.partition("/")[2], with_body)

    def refused(self, model: str) -> tuple[int, str] | None:
        if model not in self.hub.models:
            return 401, "RepoNotFound"
        if model in self.hub.gated and self.headers.get("Authorization") != "Bearer good":
            return 403, "GatedRepo"
        return None

    def model(self, model: str, with_body: bool) -> None:
        if model not in self.hub.models:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        files = self.hub.models[model]
        siblings = [self.sibling(name, data) for name, data in files.items()]
        body = {
            "id": model,
            "sha": self.hub.revision,
            "siblings": siblings,
            "gated": model in self.hub.gated,
            "tags": [],
        }
        if counted := self.hub.parameters.get(model):
            body["safetensors"] = {"parameters": counted, "total": sum(counted.values())}
        return self.send(200, json.dumps(body).encode(), {}, with_body)

    def sibling(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.hub.claimed.get(name, len(data))
        sha256 = self.hub.claimed_sha256.get(name) or hashlib.sha256(data).hexdigest()
        lfs = {"lfs": {"size": size, "sha256": sha256, "pointerSize": 134}} if name.endswith(".safetensors") else {}
        return {"rfilename": name, "size": size, **lfs}

    def file(self, model: str, name: str, with_body: bool) -> None:
        if refused := self.refused(model):
            return self.send(refused[0], b"{}", {"X-Error-Code": refused[1]}, with_body)
        data = self.hub.models[model].get(name)
        if data is None:
            return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body)
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": self.hub.revision,
            "Accept-Ranges": "bytes",
        }
        start, is_part = 0, False
        if self.hub.knows_ranges:
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, is_part = int(first), first != "0" or last != ""
            if last:
                data = data[: int(last) + 1]
        if is_part:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if with_body and (breaks := self.hub.breaks_at.pop(name, None)) is not None:
            self.send(206 if is_part else 200, data[start:], headers, with_body=False)
            self.wfile.write(data[start : start + breaks])
            self.close_connection = True
            return None
        return self.send(206 if is_part else 200, data[start:], headers, with_body)

    def send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub, which the environment points at."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()

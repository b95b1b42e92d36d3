"""A model hub and a registry of Ollama's on loopback: it serves what a test gives it, and fails as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".gguf", ".bin")  # what a hub keeps as LFS, with its sha256
GGUF_LAYER = "application/vnd.ollama.image.model"


@dataclass
class Hub:
    """The hub's content, and how it is to fail."""

    url: str = ""
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)  # NAMESPACE/NAME:TAG, layers by media type
    gated: set[str] = field(default_factory=set)  # without the token "good"
    claimed: dict[str, int] = field(default_factory=dict)  # sizes that it claims, by file
    claimed_sha256: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)  # of models, by dtype, as the hub counts them
    revision: str = "0123456789abcdef0123456789abcdef01234567"
    knows_ranges: bool = True
    breaks_at: dict[str, int] = field(default_factory=dict)  # close the connection after so many bytes, by file
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # of the next files asked for
    status: int | None = None  # answer everything with it
    headers: dict[str, str] = field(default_factory=dict)  # beside `status`
    hold: threading.Event | None = None  # until it is set, a file's second half is not sent
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range

    @property
    def environ(self) -> dict[str, str]:
        """What leads a process here."""
        nobody = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {"HF_ENDPOINT": self.url, "MODELGRID_OLLAMA_REGISTRY": self.url, **nobody}

    def files_asked(self) -> list[str]:
        """The names of the files whose content was asked for, in order."""
        return [path.partition("/resolve/")[2].partition("/")[2] for _, path, _ in self.asked if "/resolve/" in path]

    def manifest(self, tag: str) -> bytes:
        """The manifest of a tag, whose last layer is its configuration."""
        *layers, config = [self._layer(*layer) for layer in self.tags[tag]]
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).encode()

    def blobs(self) -> dict[str, bytes]:
        """All layers, by digest as it is claimed."""
        return {self._layer(*layer)["digest"]: layer[1] for layers in self.tags.values() for layer in layers}

    def _layer(self, media_type: str, data: bytes) -> dict[str, Any]:
        digest = self.claimed_sha256.get(media_type) or hashlib.sha256(data).hexdigest()
        return {
            "mediaType": media_type,
            "digest": f"sha256:{digest}",
            "size": self.claimed.get(media_type, len(data)),
        }


@contextmanager
def serving_hub() -> Iterator[Hub]:
    """A running hub."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # callers may leave in the middle
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        if hub.hold is not None:
            hub.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """The parts of both APIs that pulling needs."""

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
            return self.send(self.hub.status, b"{}", self.hub.headers, with_body)
        if path.startswith("/api/models/"):
            return self.model(path.removeprefix("/api/models/").partition("/revision/")[0], with_body)
        if path.startswith("/v2/"):
            return self.registry(path.removeprefix("/v2/"), with_body)
        model, _, rest = path.removeprefix("/").partition("/resolve/")
        return self.file(model, rest.partition("/")[2], with_body)

    def registry(self, path: str, with_body: bool) -> None:
        name, _, tag = path.partition("/manifests/")
        if tag and f"{name}:{tag}" in self.hub.tags:
            return self.send(200, self.hub.manifest(f"{name}:{tag}"), {}, with_body)
        name, _, digest = path.partition("/blobs/")
        data = self.hub.blobs().get(digest)
        if data is None:
            return self.send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', {}, with_body)
        return self.content(digest, data, {}, with_body)

    def refused(self, model: str) -> tuple[int, str] | None:
        if model not in self.hub.models:
            return 401, "RepoNotFound"
        if model in self.hub.gated and self.headers.get("Authorization") != "Bearer good":
            return 403, "GatedRepo"
        return None

    def model(self, model: str, with_body: bool) -> None:
        if model not in self.hub.models:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        siblings = [self.sibling(name, data) for name, data in self.hub.models[model].items()]
        body: dict[str, Any] = {"id": model, "sha": self.hub.revision, "siblings": siblings, "tags": []}
        body["gated"] = model in self.hub.gated
        if counted := self.hub.parameters.get(model):
            body["safetensors"] = {"parameters": counted, "total": sum(counted.values())}
        return self.send(200, json.dumps(body).encode(), {}, with_body)

    def sibling(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.hub.claimed.get(name, len(data))
        sha256 = self.hub.claimed_sha256.get(name) or hashlib.sha256(data).hexdigest()
        lfs = {"lfs": {"size": size, "sha256": sha256, "pointerSize": 134}} if name.endswith(LARGE) else {}
        return {"rfilename": name, "size": size, **lfs}

    def file(self, model: str, name: str, with_body: bool) -> None:
        if refused := self.refused(model):
            return self.send(refused[0], b"{}", {"X-Error-Code": refused[1]}, with_body)
        data = self.hub.models[model].get(name)
        if data is None:
            return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body)
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.hub.revision}
        return self.content(name, data, headers, with_body)

    def content(self, name: str, data: bytes, headers: Mapping[str, str], with_body: bool) -> None:
        """A file, whole or from where it is wanted."""
        if self.hub.refusals:
            status, told = self.hub.refusals.pop(0)
            return self.send(status, b"{}", told, with_body)
        whole, start, is_part = len(data), 0, False
        if self.hub.knows_ranges:
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, is_part = int(first), first != "0" or last != ""
            data = data[: int(last) + 1] if last else data
        if start >= whole and is_part:
            return self.send(416, b"", {"Content-Range": f"bytes */{whole}"}, with_body)
        found = {**headers, "Accept-Ranges": "bytes"}
        if is_part:
            found["Content-Range"] = f"bytes {start}-{len(data) - 1}/{whole}"
        status = 206 if is_part else 200
        if with_body and (breaks := self.hub.breaks_at.pop(name, None)) is not None:
            self.send(status, data[start:], found, with_body=False)
            self.wfile.write(data[start : start + breaks])
            self.close_connection = True
            return None
        if with_body and self.hub.hold is not None and len(data) > 1 << 16:
            return self.held(status, data[start:], found, self.hub.hold)
        return self.send(status, data[start:], found, with_body)

    def held(self, status: int, data: bytes, headers: dict[str, str], hold: threading.Event) -> None:
        self.send(status, data, headers, with_body=False)
        half = len(data) // 2
        self.wfile.write(data[:half])
        self.wfile.flush()
        assert hold.wait(60)
        self.wfile.write(data[half:])

    def send(self, status: int, body: bytes, headers: Mapping[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass

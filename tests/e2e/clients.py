"""What tests of the official clients share: one modelgrid with a key, and the test engines behind it."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

import httpx

from e2e.daemon import Daemon

SOLO, PAIR = "solo", "pair"  # a model of one replica, and one of two
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FITTING = {"city": "x", "days": 3}  # what the test engine says to this schema
SOUND = b"RIFF" + bytes(range(256)) * 4096
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(255, -1, -1)) * 512

_series = itertools.count(1)


@dataclass(frozen=True)
class Served:
    """A modelgrid that serves, and the key of a caller."""

    daemon: Daemon
    key: str

    @property
    def url(self) -> str:
        """What clients take as their base URL, without /v1."""
        return self.daemon.url

    def course(self, request_id: str) -> list[dict[str, Any]]:
        """What the engines saw of the requests with this x-request-id."""
        return [seen for page in self._pages("left") for seen in page["requests"] if seen["request_id"] == request_id]

    def received(self, request_id: str) -> list[dict[str, Any]]:
        """The same requests as they came, byte for byte."""
        wanted = ["x-request-id", request_id]
        return [
            seen
            for page in self._pages("requests")
            for seen in page["requests"]
            if wanted in [[name.lower(), value] for name, value in seen["headers"]]
        ]

    def _pages(self, name: str) -> list[dict[str, Any]]:
        urls = [replica.url for replica in self.daemon.replicas() if replica.url]
        return [httpx.get(f"{url.removesuffix('/v1')}/faulty/{name}", trust_env=False).json() for url in urls]


def told(**ways: Any) -> dict[str, str]:
    """The header that tells the test engine how to answer, and an id of the request's own."""
    number = next(_series)
    return {"x-faulty": json.dumps({"id": str(number), **ways}), "x-request-id": f"told-{number}"}


def heard(name: str, data: bytes) -> str:
    """What the test engine makes of a sound."""
    return f"{name} of {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"

"""What the test engines behind a modelgrid have seen, asked of them directly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import httpx

from e2e.daemon import Daemon, until

_series = itertools.count(1)


def told(**ways: Any) -> dict[str, str]:
    """Headers that tell the test engine how to answer, under an id of the request's own."""
    number = next(_series)
    return {"x-faulty": json.dumps({"id": f"seen-{number}", **ways}), "x-request-id": f"seen-{number}"}


class Engines:
    """The engines of some models. Where they are is asked once: they have to be ready."""

    def __init__(self, daemon: Daemon, *models: str) -> None:
        self.urls = [replica.url for model in models for replica in daemon.replicas(model) if replica.url]
        assert self.urls, f"nothing of {models} is ready"
        self._client = httpx.Client(trust_env=False, timeout=30.0)

    def pages(self, name: str, last: int = 1000) -> list[dict[str, Any]]:
        """What each tells at /faulty/…"""
        roots = [url.removesuffix("/v1") for url in self.urls]
        return [self._client.get(f"{root}/faulty/{name}?last={last}").json() for root in roots]

    def courses(self, headers: dict[str, str]) -> list[dict[str, Any]]:
        """When what happened to the request with these headers, wherever it was sent."""
        wanted = headers["x-request-id"]
        return [seen for page in self.pages("left", 60) for seen in page["requests"] if seen["request_id"] == wanted]

    def received(self, headers: dict[str, str]) -> list[dict[str, Any]]:
        """The same request as it came, byte for byte."""
        wanted = ("x-request-id", headers["x-request-id"])
        return [
            seen
            for page in self.pages("requests", 60)
            for seen in page["requests"]
            if wanted in [(name.lower(), value) for name, value in seen["headers"]]
        ]

    def until_one(self, headers: dict[str, str], claim: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until one of them has the request, and what is claimed of it."""

        def look() -> dict[str, Any] | None:
            return next((course for course in self.courses(headers) if claim(course)), None)

        return until(f"an engine has {headers['x-request-id']}", look, 15)

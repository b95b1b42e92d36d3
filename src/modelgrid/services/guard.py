"""What stands before every request of a service: its key, its size, whether the model is loaded; and its count."""

from __future__ import annotations

import hmac
import time
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelgrid.services.errors import ServiceError, answer
from modelgrid.services.meters import Meters

_OPEN_PATHS = frozenset({"/health", "/ready"})  # what runtimes ask without a key
_OF_THE_BASE = frozenset({*_OPEN_PATHS, "/metrics", "/v1/models"})  # answered while the model loads, and not counted
_CURLS_OWN = b"application/x-www-form-urlencoded"  # what curl sends with -d, where nobody says otherwise


class Guarded(Protocol):
    """What is to be known of the service."""

    body_bytes: int
    meters: Meters

    @property
    def is_loaded(self) -> bool: ...

    @property
    def known_as(self) -> str: ...


class Guard:
    """Asks for the key, turns requests away while the model loads and bodies that are too large, and counts."""

    def __init__(self, app: ASGIApp, service: Guarded, key: str | None) -> None:
        self._app = app
        self._service = service
        self._expected = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._expected and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            error = ServiceError(401, "the engine's key is missing or wrong", code="invalid_api_key")
            await answer(error)(scope, receive, send)
            return
        if scope["path"] in _OF_THE_BASE:
            await self._app(scope, receive, send)
            return
        if not self._service.is_loaded:
            error = ServiceError(503, f"{self._service.known_as} is still loading", retry_s=5)
            await answer(error)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        scope["headers"] = _as_json(scope["headers"], headers)
        await self._counted(scope, self._limited(headers, receive), send)

    def _limited(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """`receive`, which raises once more has come than a body may have, or as soon as it is announced."""
        limit, size = self._service.body_bytes, 0
        announced = headers.get(b"content-length", b"")

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > limit or (announced.isdigit() and int(announced) > limit):
                    said = f"cannot read the request: its body is larger than {limit} bytes"
                    raise ServiceError(413, said, code="request_too_large")
            return message

        return limited

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 500

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            # As the route is written, so that ids make no series of their own.
            path = getattr(scope.get("route"), "path", "other")
            self._service.meters.requests.labels(path, status).inc()
            self._service.meters.seconds.labels(path).observe(time.perf_counter() - began)


def _as_json(pairs: list[tuple[bytes, bytes]], headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """A body of which nothing is said, or what curl says by itself, is JSON: nothing else is sent that way here."""
    if headers.get(b"content-type", _CURLS_OWN) != _CURLS_OWN:
        return pairs
    return [pair for pair in pairs if pair[0] != b"content-type"] + [(b"content-type", b"application/json")]

"""One request to a service in this process, whose answer is seen as it comes and whose caller can leave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI

DEADLINE_S = 20.0


class Exchange:
    """``async with Exchange(app, "/v1/audio/speech", {…}) as exchange``; the app runs as long as that."""

    def __init__(self, app: FastAPI, path: str, body: object) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.is_over = False
        self._app = app
        self._body = json.dumps(body).encode()
        self._scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self._is_read = False
        self._left = asyncio.Event()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Exchange:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        async with asyncio.timeout(DEADLINE_S):
            await self._running

    async def more(self) -> bytes:
        """The next part that isn't empty; b"" at the end."""
        seen = len(self.parts)
        async with asyncio.timeout(DEADLINE_S):
            while len(self.parts) == seen and not self.is_over:
                await self._news.wait()
                self._news.clear()
        return b"".join(self.parts[seen:])

    async def end(self) -> bytes:
        """Wait for the end: all that came."""
        while not self.is_over:
            await self.more()
        return b"".join(self.parts)

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            self.is_over = True
            self._news.set()

    async def _receive(self) -> dict[str, object]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message.get("body"):
            self.parts.append(message["body"])
            self._news.set()

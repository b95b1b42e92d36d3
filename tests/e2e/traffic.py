"""Callers: single requests whose whole outcome is kept, streams in the background, and a crowd that goes on."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

from e2e.daemon import Daemon

REPLY_TIMEOUT_S = 60.0


@dataclass
class Reply:
    """What a caller got: everything, also where it went wrong."""

    model: str
    asked: float
    status: int = 0  # 0: no answer at all
    text: str = ""  # the body of an answer that is no stream
    events: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False  # a stream came to its [DONE], an answer to its end
    broke: str | None = None  # how the connection ended, where it did so early
    ended: float = 0.0
    worker: str = ""  # the gateway worker of this connection, where it was asked for

    @property
    def is_served(self) -> bool:
        """Answered in full, without an error."""
        return self.status == 200 and self.is_done and self.error is None

    @property
    def error(self) -> dict[str, Any] | None:
        """The error event that ended a stream."""
        found: dict[str, Any] | None = next((event["error"] for event in self.events if "error" in event), None)
        return found

    @property
    def pid(self) -> int:
        """The engine that answered; the test engine tells."""
        said = self.events[0] if self.events else json.loads(self.text)
        return int(said["system_fingerprint"].removeprefix("pid-"))


def chat_body(model: str, *, stream: bool) -> dict[str, Any]:
    """A chat, as any client sends it."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}


def ask(client: httpx.Client, model: str, *, stream: bool = False, path: str = "/v1/chat/completions") -> Reply:
    """One request; never raises for what the other side does."""
    reply = Reply(model, time.monotonic())
    _ask(client, reply, stream, path)
    return reply


def embed(client: httpx.Client, model: str) -> Reply:
    """One embedding."""
    reply = Reply(model, time.monotonic())
    _send(client, reply, "/v1/embeddings", {"model": model, "input": "hello"})
    return reply


def _ask(client: httpx.Client, reply: Reply, stream: bool, path: str) -> None:
    _send(client, reply, path, chat_body(reply.model, stream=stream))


def _send(client: httpx.Client, reply: Reply, path: str, body: dict[str, Any]) -> None:
    try:
        with client.stream("POST", path, json=body) as answer:
            reply.status = answer.status_code
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                for line in answer.iter_lines():
                    _take(reply, line)
            else:
                reply.text = answer.read().decode()
                reply.is_done = True
    except httpx.HTTPError as error:
        reply.broke = f"{type(error).__name__}: {error}"
    reply.ended = time.monotonic()


def _take(reply: Reply, line: str) -> None:
    if line == "data: [DONE]":
        reply.is_done = True
    elif line.startswith("data: "):
        reply.events.append(json.loads(line.removeprefix("data: ")))


class Stream:
    """A stream that is read in the background, on a connection of its own. It asks which worker it has got."""

    def __init__(self, daemon: Daemon, model: str, **headers: str) -> None:
        self.reply = Reply(model, time.monotonic())
        self._daemon = daemon
        self._headers = headers
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def has_begun(self) -> bool:
        """Whether the first event has come."""
        return bool(self.reply.events)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return not self._thread.is_alive()

    def result(self, timeout_s: float = REPLY_TIMEOUT_S) -> Reply:
        """Wait for its end."""
        self._thread.join(timeout_s)
        assert self.is_over, f"still streaming after {timeout_s:.0f}s: {self.reply}"
        return self.reply

    def _read(self) -> None:
        with self._daemon.client(headers=self._headers) as client:
            self.reply.worker = client.get("/health").json()["worker"]
            _ask(client, self.reply, True, "/v1/chat/completions")


class Crowd:
    """Callers that ask for `models` in turn, each on its own connection, until the block is left."""

    def __init__(self, daemon: Daemon, models: Sequence[str], *, callers: int = 4, stream: bool | None = None) -> None:
        self.replies: list[Reply] = []
        self._daemon = daemon
        self._models = models
        self._stream = stream  # None: every second one
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(callers)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(REPLY_TIMEOUT_S)
        assert error is not None or not any(thread.is_alive() for thread in self._threads), "a caller was left hanging"

    def served(self, model: str | None = None) -> int:
        """How many were answered in full so far."""
        return sum(1 for reply in list(self.replies) if reply.is_served and model in (None, reply.model))

    def _call(self, number: int) -> None:
        with self._daemon.client() as client:
            for turn in itertools.count(number):
                if self._over.is_set():
                    return
                model = self._models[turn % len(self._models)]
                if model.startswith("embed"):
                    self.replies.append(embed(client, model))
                else:
                    stream = (turn // len(self._models)) % 2 == 1 if self._stream is None else self._stream
                    self.replies.append(ask(client, model, stream=stream))


def failed(replies: Sequence[Reply]) -> list[Reply]:
    """Those that were not served."""
    return [reply for reply in replies if not reply.is_served]

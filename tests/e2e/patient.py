"""Patient callers: who is told to come again does so, as a client library does, until there is an answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from e2e.daemon import Daemon

PATIENCE_S = 60.0  # of a caller, over all its tries


@dataclass
class Answers:
    """What callers got."""

    answered: Counter[str] = field(default_factory=Counter)
    told_to_come_again: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def told(self) -> str:
        """For people."""
        return (
            f"{self.answered.total()} answered {dict(self.answered)}, "
            f"told to come again {dict(self.told_to_come_again)}, "
            f"the longest wait {self.longest_s:.1f} s, {len(self.unanswered)} unanswered"
        )


async def call(
    daemon: Daemon, answers: Answers, models: Sequence[str], dice: random.Random, over: asyncio.Event
) -> None:
    """One caller: a request after the other, each to its answer."""
    async with httpx.AsyncClient(base_url=daemon.url, timeout=PATIENCE_S, trust_env=False) as client:
        while not over.is_set():
            model = dice.choice(models)
            came = time.monotonic()
            why = await _ask(client, answers, model, is_stream=dice.random() < 0.5)
            waited_s = time.monotonic() - came
            answers.longest_s = max(answers.longest_s, waited_s)
            if why is None:
                answers.answered[model] += 1
            else:
                answers.unanswered.append(f"{model} after {waited_s:.1f} s: {why}")


async def _ask(client: httpx.AsyncClient, answers: Answers, model: str, *, is_stream: bool) -> str | None:
    """Why a request got no answer; None when it did. Told to come again, it comes again when it was told to."""
    body = {"model": model, "stream": is_stream, "messages": [{"role": "user", "content": "hello"}]}
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        if answer.status_code == 200:
            return None if not is_stream or answer.text.endswith("data: [DONE]\n\n") else f"cut off: {answer.text}"
        pause_s = float(answer.headers.get("retry-after", "nan"))
        if answer.status_code != 503 or not time.monotonic() + pause_s < deadline:
            return f"{answer.status_code}: {answer.text}"
        answers.told_to_come_again[model] += 1
        await asyncio.sleep(pause_s)

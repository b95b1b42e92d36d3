"""A body that is relayed while it comes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from modelgrid.gateway.answers import Answer


class Source(Protocol):
    """Where an upload comes from: its caller's connection."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Upload:
    """One."""

    def __init__(self, type: bytes, length: int | None, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self.is_ended = False
        del type, length, source, loop

    def add(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...
    def lose(self, answer: Answer) -> None: ...

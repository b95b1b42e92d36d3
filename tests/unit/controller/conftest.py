"""A scene plays on a stage of its own."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from modelgrid.store import Store
from unit.controller.stage import Play, Scene, stage_in


@pytest.fixture
def play() -> Play:
    """Runs a scene, an async function, on a stage of its own."""

    def run(scene: Scene, *, store: Store | None = None, workers: int = 1) -> None:
        async def whole() -> None:
            with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
                async with stage_in(Path(folder), store, workers) as stage:
                    await scene(stage)

        asyncio.run(whole())

    return run

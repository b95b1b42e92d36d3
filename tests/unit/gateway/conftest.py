"""A scene plays in a world of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import uvloop

from unit.gateway.world import Play, Scene, world_of


@pytest.fixture
def play() -> Play:
    """Runs a scene, an async function, in a world of its own; options are the worker's."""

    def run(scene: Scene, **options: Any) -> None:
        async def whole() -> None:
            with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
                async with world_of(Path(folder), **options) as world:
                    await scene(world)

        uvloop.run(whole())

    return run

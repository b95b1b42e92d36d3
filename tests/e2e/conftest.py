"""Real daemons for tests, each with a home of its own; nothing of them outlives the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.daemon import Daemon, free_port

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Makes daemons: ``make_daemon({"a": faulty()}, memory="1GiB")``; they are not started yet."""
    made: list[Daemon] = []

    def make(
        models: dict[str, Any], *, memory: str = "1GiB", environ: dict[str, str] | None = None, **gateway: Any
    ) -> Daemon:
        config = {
            "gateway": {"port": free_port(), **gateway},
            "machine": {"memory": memory},
            "models": models,
        }
        daemon = Daemon(tmp_path / f"home{len(made)}", config, environ or {})
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.end()

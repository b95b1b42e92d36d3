"""Real daemons for tests, each with a home of its own; nothing of them outlives the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.clients import PAIR, SOLO, Served
from e2e.daemon import Daemon, faulty, free_port, until

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


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One modelgrid for all tests of the official clients: test engines that ask for keys, and a key for the caller."""
    models = {
        SOLO: faulty("--key-from-env", aliases=["gpt-4o", "claude-sonnet"], scaling={"min": 1}),
        PAIR: faulty("--key-from-env", scaling={"min": 2, "max": 2}),
    }
    config = {"gateway": {"port": free_port(), "workers": 2}, "machine": {"memory": "1GiB"}, "models": models}
    daemon = Daemon(tmp_path_factory.mktemp("clients"), config)
    try:
        daemon.start()
        for model in models:
            daemon.until_state(model, "ready")
        made = daemon.run("key", "create", "clients", "--json")
        assert made.returncode == 0, made.stderr
        until("every worker asks for a key", lambda: all(_asks_for_a_key(daemon) for _ in range(20)))
        yield Served(daemon, json.loads(made.stdout)["key"])
    finally:
        daemon.end()


def _asks_for_a_key(daemon: Daemon) -> bool:
    with daemon.client() as client:  # a connection of its own, which any worker may take
        return client.get("/v1/models").status_code == 401

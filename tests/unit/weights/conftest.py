"""A model hub on loopback, which the environment points at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hubs import Hub, serving_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub."""
    with serving_hub() as hub:
        for name, value in hub.environ.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield hub

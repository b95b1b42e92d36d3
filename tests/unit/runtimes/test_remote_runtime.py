"""Remote servers are registered and forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from modelgrid.runtimes.remote import RemoteRuntime
from modelgrid.runtimes.runtime import StartError
from modelgrid.spec import Launch, ModelName, ReplicaId, Running, Seen, Unknown

ONE = ReplicaId("elsewhere/1")
LAUNCH = Launch(ModelName("elsewhere"), "r1", "theirs", url="https://host.example/api/v1/", key="s3cret")


def quiet(phase: str, detail: str) -> None:
    """Progress that nobody follows."""


def test_a_registered_server_is_reached_at_its_base_url(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime = RemoteRuntime(records=tmp_path / "remote")
        await runtime.start(ONE, LAUNCH, quiet)
        url = "https://host.example/api/v1"
        assert await runtime.list() == [Seen(ONE, ModelName("elsewhere"), "r1", Running(url, url))]

    asyncio.run(scenario())


def test_its_key_is_not_written_down(tmp_path: Path) -> None:
    asyncio.run(RemoteRuntime(records=tmp_path).start(ONE, LAUNCH, quiet))
    [path] = tmp_path.iterdir()
    assert "s3cret" not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime = RemoteRuntime(records=tmp_path)
        await runtime.start(ONE, LAUNCH, quiet)
        before = await runtime.list()
        await runtime.start(ONE, replace(LAUNCH, url="https://other.example/v1"), quiet)
        assert await runtime.list() == before

    asyncio.run(scenario())


def test_without_a_url_there_is_nothing_to_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="it has no url"):
        asyncio.run(RemoteRuntime(records=tmp_path).start(ONE, replace(LAUNCH, url=None), quiet))


def test_a_record_that_cannot_be_read_is_unknown_not_empty(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("half a rec")
    found = asyncio.run(RemoteRuntime(records=tmp_path).list())
    assert isinstance(found, Unknown)

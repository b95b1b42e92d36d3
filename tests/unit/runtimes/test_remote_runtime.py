"""Remote servers are registered and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modelgrid.runtimes.remote import RemoteRuntime
from modelgrid.runtimes.runtime import StartError
from modelgrid.spec import Launch, ModelName, ReplicaId, Running, Seen, Unknown

ONE = ReplicaId("elsewhere/1")
LAUNCH = Launch(ModelName("elsewhere"), "r1", "theirs", urls=("https://host.example/api/v1/",), key="s3cret")


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
        await runtime.start(ONE, replace(LAUNCH, urls=("https://other.example/v1",)), quiet)
        assert await runtime.list() == before

    asyncio.run(scenario())


def test_without_a_url_there_is_nothing_to_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="it has no url"):
        asyncio.run(RemoteRuntime(records=tmp_path).start(ONE, replace(LAUNCH, urls=()), quiet))


SEVERAL = replace(LAUNCH, urls=tuple(f"http://host-{letter}/v1/" for letter in "abc"))


def url_of(seen: Seen) -> str:
    assert isinstance(seen.state, Running)
    return seen.state.url


def test_each_replica_has_a_server_of_its_own_also_when_all_start_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime = RemoteRuntime(records=tmp_path)
        ids = [ReplicaId(f"elsewhere-{number}") for number in range(3)]
        await asyncio.gather(*(runtime.start(id, SEVERAL, quiet) for id in ids))
        found = await runtime.list()
        assert not isinstance(found, Unknown)
        assert sorted(map(url_of, found)) == ["http://host-a/v1", "http://host-b/v1", "http://host-c/v1"]
        gone = next(seen.replica for seen in found if url_of(seen) == "http://host-b/v1")
        await runtime.stop(gone, force=False)
        await RemoteRuntime(records=tmp_path).start(ReplicaId("elsewhere-9"), SEVERAL, quiet)
        again = await runtime.list()
        assert not isinstance(again, Unknown)
        assert [url_of(seen) for seen in again if seen.replica == "elsewhere-9"] == ["http://host-b/v1"]

    asyncio.run(scenario())


def test_a_server_is_free_for_a_newer_revision_and_for_another_model(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime = RemoteRuntime(records=tmp_path)
        for number, launch in enumerate(
            (SEVERAL, replace(SEVERAL, revision="r2"), replace(SEVERAL, model=ModelName("x")))
        ):
            await runtime.start(ReplicaId(f"e-{number}"), launch, quiet)
        found = await runtime.list()
        assert not isinstance(found, Unknown)
        assert list(map(url_of, found)) == ["http://host-a/v1"] * 3

    asyncio.run(scenario())


@pytest.mark.parametrize("content", ["", "half a rec", "[]", '{"replica": "elsewhere/1"}'])
def test_a_broken_record_is_passed_over_and_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    async def scenario() -> None:
        runtime = RemoteRuntime(records=tmp_path)
        await runtime.start(ReplicaId("other-1"), LAUNCH, quiet)
        broken = tmp_path / "elsewhere%2F1.json"
        broken.write_text(content)
        for _ in range(2):
            assert [seen.replica for seen in await seen_by(runtime)] == ["other-1"]
        assert capsys.readouterr().out.count(str(broken)) == 1
        await runtime.start(ONE, LAUNCH, quiet)  # its record is made anew
        assert [seen.replica for seen in await seen_by(runtime)] == [ONE, "other-1"]
        await runtime.stop(ONE, force=False)
        assert [seen.replica for seen in await seen_by(runtime)] == ["other-1"]

    asyncio.run(scenario())


def test_a_record_that_vanishes_while_they_are_read_hides_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime = RemoteRuntime(records=tmp_path)
        await runtime.start(ONE, LAUNCH, quiet)
        (tmp_path / "a.json").symlink_to("gone")  # listed, and not there when it is read
        assert [seen.replica for seen in await seen_by(runtime)] == [ONE]

    asyncio.run(scenario())


def test_a_record_that_cannot_be_looked_at_is_unknown_not_empty(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").mkdir()
    found = asyncio.run(RemoteRuntime(records=tmp_path).list())
    assert isinstance(found, Unknown)


async def seen_by(runtime: RemoteRuntime) -> Sequence[Seen]:
    found = await runtime.list()
    assert not isinstance(found, Unknown), found
    return found

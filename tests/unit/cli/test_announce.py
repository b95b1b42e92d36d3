"""What `serve` says, and when."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from modelgrid.api.fake import FakeControl, fake_daemon
from modelgrid.cli.announce import Announcer
from modelgrid.config import Config
from modelgrid.config.paths import Paths
from modelgrid.daemon.children import Death
from modelgrid.spec import ModelName, ModelSpec, ModelStatus, Status
from modelgrid.store import SqliteStore

CONFIG = Config(models=(ModelSpec(ModelName("mine"), "custom"),))


@dataclass
class CountingControl(FakeControl):
    looks: int = 0

    def status(self) -> Status:
        self.looks += 1
        return super().status()


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "nothing happened"
        await asyncio.sleep(0.02)


def test_where_to_send_requests_is_said_once_the_models_are_known(
    paths: Paths, store: SqliteStore, status: Status, model: ModelStatus, capsys: pytest.CaptureFixture[str]
) -> None:
    control = CountingControl(replace(status, models=(), replicas=()))  # as it is before the controller's first lap
    written: list[str] = []

    def said(words: str) -> bool:
        written.append(capsys.readouterr().err)
        return words in "".join(written)

    async def scenario() -> None:
        telling = asyncio.create_task(Announcer(paths, CONFIG, hub=True).announce(asyncio.Event(), deque[Death]()))
        await until(lambda: control.looks > 2)
        assert not said("modelgrid serves")
        control.show(replace(model, operations=("chat",)))
        await until(lambda: said("modelgrid serves"))
        await until(lambda: said('"model":"mine"'))
        assert not said("no models are configured")
        telling.cancel()
        await asyncio.wait([telling])

    with fake_daemon(control, store, paths.api_socket):
        asyncio.run(scenario())


def test_a_death_that_repeats_is_a_line_once(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    again = Death("gateway-1", "killed by SIGKILL", 5.0)
    deaths = deque([Death("gateway-1", "killed by SIGKILL", 0.0), again, again, again])

    async def scenario() -> None:
        telling = asyncio.create_task(Announcer(paths, CONFIG, hub=True).announce(asyncio.Event(), deaths))
        await until(lambda: not deaths)
        telling.cancel()
        await asyncio.wait([telling])

    asyncio.run(scenario())
    lines = capsys.readouterr().err.split("gateway-1 died ")[1:]
    assert [line.split(";")[0] for line in lines] == [
        "(killed by SIGKILL), again at once",
        "(killed by SIGKILL), again in 5.0s",
    ]

"""Lock files."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from modelgrid.runtimes.locks import LockTimeout, locked, locked_by_task


def test_a_lock_has_one_holder_also_when_holders_remove_its_file(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(100):
            with locked(path, timeout_s=60):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)
                path.unlink()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 800
    assert max(most) == 1


def test_who_waits_in_vain_is_told(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    with locked(path, timeout_s=1), pytest.raises(LockTimeout, match=r"one\.lock"), locked(path, timeout_s=0.05):
        pass
    with locked(path, timeout_s=0):
        pass


def test_a_task_waits_without_blocking_the_others_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"

    async def scenario() -> None:
        waits = asyncio.Event()

        async def second() -> None:
            async with locked_by_task(path, waits.set):
                pass

        async with locked_by_task(path, lambda: pytest.fail("nobody has it")):
            task = asyncio.create_task(second())
            await waits.wait()
            assert not task.done()
        await task

    asyncio.run(scenario())

"""What a replica of a model needs, where nobody said: estimated from its weights, which a hub may have to be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from modelgrid import weights
from modelgrid.engines import ENGINES
from modelgrid.spec import ModelSpec, Need, Unknown

ASK_AGAIN_S = 30.0

_Key = tuple[str, str]

log = structlog.get_logger()


class Sizes:
    """Answers at once. What has to be looked up is `Unknown` and on its way, and wakes the controller when it came."""

    def __init__(self, models: Path, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self._models = models
        self._wake = wake
        self._clock = clock
        self._found: dict[_Key, tuple[float, int | Unknown]] = {}
        self._one_by_one = asyncio.Semaphore(1)
        self._asking: dict[_Key, asyncio.Task[None]] = {}

    def need(self, spec: ModelSpec) -> Need | Unknown:
        """What one replica takes of a machine."""
        if spec.gpus and spec.memory_bytes is None:
            return Need(None, spec.gpus, spec.main_bytes or 0)
        memory_bytes = self.memory_bytes(spec)
        if isinstance(memory_bytes, Unknown):
            return memory_bytes
        return Need(memory_bytes, spec.gpus, spec.main_bytes or 0)

    def memory_bytes(self, spec: ModelSpec) -> int | Unknown:
        """What the configuration says, else the engine's estimate from the size of the weights."""
        engine = ENGINES[spec.engine]
        if spec.memory_bytes is not None:
            return spec.memory_bytes
        if spec.source is None:
            return engine.memory_bytes(spec, 0)
        size = self._look_up((spec.name, spec.revision), spec.source)
        if not isinstance(size, Unknown):
            return engine.memory_bytes(spec, size)
        if size.is_coming:
            return size
        return Unknown(f"nobody knows how much memory it needs: {size.why} (try: set needs.memory)")

    def weights_bytes(self, spec: ModelSpec) -> int | None:
        """The size of its weights; None where it has none, or nobody knows yet."""
        if spec.source is None:
            return None
        size = self._look_up((spec.name, spec.revision), spec.source)
        return None if isinstance(size, Unknown) else size

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, key: _Key, source: str) -> int | Unknown:
        """The last answer, which a fresh question replaces after a while where it was none."""
        asked, size = self._found.get(key, (0.0, Unknown("its size is being looked up", is_coming=True)))
        if isinstance(size, Unknown) and key not in self._asking and self._clock() - asked >= ASK_AGAIN_S:
            self._asking[key] = asyncio.create_task(self._ask(key, source), name=f"size of {source}")
        return size

    async def _ask(self, key: _Key, source: str) -> None:
        try:
            async with self._one_by_one:  # a hub that does not answer takes no more than one of the loop's threads
                size = await asyncio.to_thread(weights.size_bytes, source, self._models)
        except Exception as error:
            log.exception("size.broke", source=source)
            size = Unknown(f"cannot look up the size of {source}: {type(error).__name__}: {error}")
        finally:
            del self._asking[key]
        self._found[key] = (self._clock(), size)
        self._wake()

"""What a replica of a model needs: as configured, else as measured, else estimated from its weights, which a hub may
have to be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from modelgrid import weights
from modelgrid.controller.measured import Measured
from modelgrid.controller.needs import Peak, Sized, accelerator, sized
from modelgrid.engines import ENGINES
from modelgrid.spec import Machine, ModelName, ModelSpec, Need, Unknown
from modelgrid.spec.weights import Weights

ASK_AGAIN_S = 30.0

_Key = tuple[str, str]

_NONE = Weights(0)

log = structlog.get_logger()


class Sizes:
    """Answers at once. What has to be looked up is `Unknown` and on its way, and wakes the controller when it came."""

    def __init__(
        self,
        models: Path,
        wake: Callable[[], None],
        clock: Callable[[], float],
        machine: Callable[[], Machine],
        measured: Measured,
    ) -> None:
        self._models = models
        self._wake = wake
        self._clock = clock
        self._machine = machine
        self._measured = measured
        self._found: dict[_Key, tuple[float, Weights | Unknown]] = {}
        self._sized: dict[ModelName, tuple[ModelSpec, Machine, Peak | None, Weights | Unknown, Sized | Unknown]] = {}
        self._one_by_one = asyncio.Semaphore(1)
        self._asking: dict[_Key, asyncio.Task[None]] = {}

    def need(self, spec: ModelSpec) -> Need | Unknown:
        """What one replica takes of a machine."""
        found = self.sized(spec)
        return found if isinstance(found, Unknown) else found.need

    def sized(self, spec: ModelSpec) -> Sized | Unknown:
        """The same, and how it came about."""
        machine, found = self._machine(), self.weights(spec)
        peak = self._measured.peak(spec, accelerator(spec, machine))
        known = self._sized.get(spec.name)  # every lap asks for every model, and the answer hardly ever changes
        if known is None or known[:3] != (spec, machine, peak) or known[3] is not found:
            known = self._sized[spec.name] = (spec, machine, peak, found, sized(spec, machine, found, peak))
        return known[4]

    def weights(self, spec: ModelSpec) -> Weights | Unknown:
        """Its weights; none, where it has no source of any."""
        if not has_weights(spec):
            return _NONE
        return self._look_up((spec.name, spec.revision), spec.source or "")

    def weights_bytes(self, spec: ModelSpec) -> int | None:
        """The size of its weights; None where it has none, or nobody knows yet."""
        found = self.weights(spec)
        return None if isinstance(found, Unknown) or not found.size_bytes else found.loaded_bytes()

    async def ask(self, spec: ModelSpec) -> Weights | Unknown:
        """The same, of any model, waiting for a hub's answer where it takes one."""
        _, found = self._found.get((spec.name, spec.revision), (0.0, Unknown("")))
        if not isinstance(found, Unknown):
            return found
        return await asyncio.to_thread(weigh_of, spec, self._models)

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, key: _Key, source: str) -> Weights | Unknown:
        """The last answer, which a fresh question replaces after a while where it was none."""
        asked, found = self._found.get(key, (0.0, Unknown("its size is being looked up", is_coming=True)))
        if isinstance(found, Unknown) and key not in self._asking and self._clock() - asked >= ASK_AGAIN_S:
            self._asking[key] = asyncio.create_task(self._ask(key, source), name=f"size of {source}")
        return found

    async def _ask(self, key: _Key, source: str) -> None:
        found: Weights | Unknown
        try:
            async with self._one_by_one:  # a hub that does not answer takes no more than one of the loop's threads
                found = await asyncio.to_thread(weights.weigh, source, self._models)
        except Exception as error:
            log.exception("size.broke", source=source)
            found = Unknown(f"cannot look up the size of {source}: {type(error).__name__}: {error}")
        finally:
            del self._asking[key]
        self._found[key] = (self._clock(), found)
        self._wake()


def has_weights(spec: ModelSpec) -> bool:
    """Whether it is loaded from a source on this machine."""
    return spec.source is not None and ENGINES[spec.engine].runtime != "remote"


def weigh_of(spec: ModelSpec, models: Path) -> Weights | Unknown:
    """Its weights. Blocks, where a hub has to be asked."""
    return weights.weigh(spec.source or "", models) if has_weights(spec) else Weights(0)

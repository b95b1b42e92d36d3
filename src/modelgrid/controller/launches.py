"""From a model to the launch of one of its replicas. The same replica gets the same launch, also after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import threading
from collections.abc import Callable
from pathlib import Path

from modelgrid import weights
from modelgrid.engines import ENGINES
from modelgrid.spec import Launch, Machine, ModelSpec, Place, Replica


class Launches:
    """Makes launches, and fetches what they need. `secret` is what the replicas' own keys are derived from."""

    def __init__(self, machine: Machine, models: Path, secret: bytes) -> None:
        self.machine = machine
        self.models = models
        self._secret = secret

    def launch(self, spec: ModelSpec, replica: Replica) -> Launch:
        """The launch of `replica`, which may take what its shares say; its weights have to be there."""
        key = hmac.new(self._secret, replica.id.encode(), hashlib.sha256).hexdigest()
        found = weights.resolve(spec.source, self.models) if spec.source else None
        place = Place(self.machine, replica.shares)
        planned = dataclasses.replace(spec, memory_bytes=place.memory_bytes)
        launch = ENGINES[spec.engine].launch(planned, replica.id, place, str(found) if found else None, key)
        has_gpus = bool(self.machine.gpus) and bool(replica.shares)
        if not has_gpus and not self.machine.hides_gpus:
            return launch
        return dataclasses.replace(launch, gpus=tuple(gpu.index for gpu in place.gpus if gpu.index is not None))

    async def fetch(self, spec: ModelSpec, tell: Callable[[str], None]) -> None:
        """Pull the weights of `spec` where they are not here yet. Raises weights.WeightsError."""
        if spec.source is None or not weights.needs_pull(spec.source, self.models):
            return
        await _pull(spec.source, self.models, tell)


async def _pull(source: str, root: Path, tell: Callable[[str], None]) -> None:
    """A pull may take an hour, or wait for another process: it has a thread of its own, that holds up neither the
    laps, which share the loop's threads, nor the end of this process."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def progress(step: weights.Progress) -> None:
        if ended.done():
            raise weights.WeightsError(f"cannot pull {source}: it was stopped")
        loop.call_soon_threadsafe(tell, str(step))

    def end(error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def work() -> None:
        failure: BaseException | None = None
        try:
            weights.pull(source, root, progress)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(end, failure)

    threading.Thread(target=work, name=f"pull {source}", daemon=True).start()
    await ended

"""From a model to the launch of one of its replicas. The same replica gets the same launch, also after a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

from modelgrid import weights
from modelgrid.engines import ENGINES
from modelgrid.spec import Launch, Machine, ModelSpec, ReplicaId


class Launches:
    """Makes launches, and fetches what they need. `secret` is what the replicas' own keys are derived from."""

    def __init__(self, machine: Machine, models: Path, secret: bytes) -> None:
        self.machine = machine
        self.models = models
        self._secret = secret

    def launch(self, spec: ModelSpec, replica: ReplicaId, memory_bytes: int) -> Launch:
        """The launch of `replica`, which may take `memory_bytes`; its weights have to be there."""
        key = hmac.new(self._secret, replica.encode(), hashlib.sha256).hexdigest()
        found = weights.resolve(spec.source, self.models) if spec.source else None
        planned = dataclasses.replace(spec, memory_bytes=memory_bytes)
        return ENGINES[spec.engine].launch(planned, replica, self.machine, str(found) if found else None, key)

    async def fetch(self, spec: ModelSpec, tell: Callable[[str], None]) -> None:
        """Pull the weights of `spec` where they are not here yet. Raises weights.WeightsError."""
        if spec.source is None or not weights.needs_pull(spec.source, self.models):
            return
        loop = asyncio.get_running_loop()
        cancelled = False

        def progress(step: weights.Progress) -> None:
            if cancelled:
                raise weights.WeightsError(f"cannot pull {spec.source}: it was stopped")
            loop.call_soon_threadsafe(tell, str(step))

        try:
            await asyncio.to_thread(weights.pull, spec.source, self.models, progress)
        finally:
            cancelled = True

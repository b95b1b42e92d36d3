"""What the control API asks of the controller, which satisfies it without knowing the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from modelgrid.spec import LogLines, Status
from modelgrid.spec.fit import Asked, Fit


class Control(Protocol):
    """The running controller, as the control API sees it. Called from the controller's own event loop."""

    def status(self) -> Status:
        """The picture of the last lap. Doesn't block."""
        ...

    async def logs(self, model: str, lines: int) -> Sequence[LogLines]:
        """The last `lines` lines of each replica of `model`, the newest replica last; also of the last one that has
        gone. Raises LookupError for a model that isn't there."""
        ...

    async def fit(self, asked: Asked) -> Fit:
        """Where a replica of a model would go now. Asks a hub, where the model isn't known. Raises ValueError for
        what can't be a model."""
        ...

    async def metrics(self) -> bytes:
        """What `GET /metrics` answers, in Prometheus' text format."""
        ...

    def wake(self) -> None:
        """Something was written to the store: look at it now instead of in the next lap. Doesn't block."""
        ...

    def config(self) -> str:
        """The configuration in force as YAML, with secrets masked."""
        ...

    def names(self) -> Mapping[str, str]:
        """The model's name for each name and alias that callers may use."""
        ...

"""A request of a trace, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from modelgrid.spec import ModelName, ReplicaId

PATIENCE_S = 600.0  # what modelgrid lets a request wait, and what the OpenAI clients wait by default


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it comes, for whom, and how much work it is."""

    at: float  # seconds from the beginning of the trace
    model: ModelName
    input: int  # tokens
    output: int  # tokens; one at least
    priority: int = 0  # of requests for the same model, who has more goes first
    deadline_s: float | None = None  # it is of use when it is answered whole by then; None: always
    patience_s: float = PATIENCE_S  # then its caller leaves, wherever it is


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way. Times are the world's; None: that has not happened."""

    request: Request
    number: int
    sent: float | None = None  # to a replica
    first: float | None = None  # token
    done: float | None = None
    left: float | None = None  # its caller went away, or was turned away
    refused: str = ""  # why it was turned away
    replica: ReplicaId | None = None

    @property
    def model(self) -> ModelName:
        """The model that it is for."""
        return self.request.model

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.done is not None or self.left is not None

    @property
    def is_in_time(self) -> bool:
        """Whether it was answered whole, and by its deadline."""
        limit_s = self.request.deadline_s
        return self.done is not None and (limit_s is None or self.done - self.request.at <= limit_s)

    @property
    def waited_s(self) -> float | None:
        """From its coming to a replica that takes it, or for as long as its caller waited for that; None: it was
        turned away, or the simulation ended first."""
        if self.refused:
            return None
        end = self.sent if self.sent is not None else self.left
        return None if end is None else end - self.request.at

    @property
    def ttft_s(self) -> float | None:
        """From its coming to its first token."""
        return None if self.first is None else self.first - self.request.at

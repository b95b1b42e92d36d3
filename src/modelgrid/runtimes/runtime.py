"""The seam of runtimes: the only code that starts or stops anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from modelgrid.spec import Launch, ReplicaId, Seen, Unknown

Progress = Callable[[str, str], None]  # (phase, detail): phase is "environment" or "spawn"


class StartError(Exception):
    """A replica could not be started; the text says what, why, and what to do."""


class Runtime(Protocol):
    """Where replicas run. Everything below holds for every runtime and is what the contract tests check.

    - `start` of an id that is already there, or is being started, is not a second start: two calls at once or one
      after the other, from one process or from two, make one replica. It returns when `list` shows the replica.
    - What was started stays in `list`, as Running or Exited, until `stop` has ended and forgotten it, also after
      the process that started it has died. Exited with ``processes > 0`` still holds memory.
    - `stop` may be called any number of times, for what runs, has exited, or never was. It asks, and returns soon;
      it is repeated until `list` omits the id. Only then is its memory free.
    - `list` never guesses: it answers `Unknown` where it can't see. It sees only what this installation started.
    - Closing a runtime, or its process dying, leaves replicas as they are.
    """

    name: str

    async def start(self, replica: ReplicaId, launch: Launch, progress: Progress) -> None:
        """Start `launch` under the id `replica`. Takes as long as making its environment takes; may be cancelled,
        which leaves nothing behind that `stop` doesn't clear. Raises StartError."""
        ...

    async def stop(self, replica: ReplicaId, *, force: bool) -> None:
        """Ask all of the replica's processes to end; with `force` make them. Returns within a second."""
        ...

    async def logs(self, replica: ReplicaId, lines: int) -> list[str]:
        """The last `lines` lines that the replica wrote, also after it has gone; empty when there are none."""
        ...

    def look_again(self, replica: ReplicaId) -> None:
        """What the replica holds has changed at once, as it was put to sleep: the next `list` that begins measures it
        anew, where figures are remembered for a while."""
        ...

    # Last, for in what follows `list` means this method, in annotations too.
    async def list(self) -> Sequence[Seen] | Unknown:
        """What is there now. Returns within a second."""
        ...

"""A child process that is started again when it dies, at once and then with growing pauses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

READY = "MODELGRID_READY"  # the descriptor on which a child says that it can do its work

_PAUSES_S = (0.0, 0.2, 0.5, 5.0)
_STABLE_S = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Death:
    """A child that ended without having been asked, or could not be started."""

    child: str
    how: str
    again_in_s: float


class Child:
    """One role's process. It has a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone. `died`
    is told of each death, before it is started again. One `on_trial` isn't, until it has been ready once."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        *,
        died: Callable[[Death], object] = lambda _: None,
        on_trial: bool = False,
    ) -> None:
        self.name = name
        self.is_ready = asyncio.Event()  # one of its processes has said so
        self._on_trial = on_trial
        self._died = died
        self._argv = [sys.executable, "-m", "modelgrid.daemon", *arguments]
        self._environ = {**os.environ, **environ}
        self._pass_fds = tuple(pass_fds)
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()

    @property
    def has_ended_well(self) -> bool:
        """Whether the last process ended by itself and without an error."""
        return self._process is not None and self._process.returncode == 0

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def keep(self) -> str:
        """Run it, again and again, until `end` has been called, or its trial has failed, and it has ended. Answers how
        the last process did."""
        deaths = 0
        how = "not started"
        while not self._ending.is_set():
            begun = time.monotonic()
            how = await self._run()
            if self._ending.is_set() or (self._on_trial and not self.is_ready.is_set()):
                break
            deaths = 1 if time.monotonic() - begun > _STABLE_S else deaths + 1
            pause_s = _PAUSES_S[min(deaths, len(_PAUSES_S)) - 1]
            log.error("child.died", child=self.name, how=how, again_in_s=pause_s)
            self._died(Death(self.name, how, pause_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s)
        return how

    async def _run(self) -> str:
        """Once, to its end. Answers how it ended: a machine without room for another process is no end of ours."""
        self._process = None
        try:
            with self._listening() as write_end:
                self._process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    env={**self._environ, READY: str(write_end)},
                    pass_fds=(*self._pass_fds, write_end),
                    start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                )
        except OSError as error:
            return f"could not be started: {error}"
        if self._ending.is_set():
            self.end()  # it was not there yet when it was asked
        return _how(await self._process.wait())

    @contextlib.contextmanager
    def _listening(self) -> Iterator[int]:
        """The end of a pipe for a process to inherit; the other end is read until it is closed by all who have it."""
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()

        def heard() -> None:
            if os.read(read_end, 64):
                self.is_ready.set()
            else:
                loop.remove_reader(read_end)
                os.close(read_end)

        loop.add_reader(read_end, heard)
        try:
            yield write_end
        finally:
            os.close(write_end)

    def retire(self) -> None:
        """Ask it to end once its callers have turned to its successor, and don't start it again."""
        self.end(signal.SIGUSR1)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and don't start it again."""
        self._ending.set()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _how(code: int) -> str:
    return f"exited with code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

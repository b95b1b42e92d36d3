"""How a worker takes connections from the socket that it shares with others: whoever has fewest takes the next.

Left to the kernel, whichever worker looks first takes all that wait: of 32 connections that come at once, one of two
workers often gets 30, and keeps them for as long as they are used. Sockets of their own would be no better, since then
a hash decides, and what waits at the socket of a worker that dies is lost.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final

import structlog

from modelgrid.gateway.certificate import accepting
from modelgrid.gateway.ledger import Ledger

_TURNS: Final = 8  # of the loop, some 10 µs each, in which a worker with fewer connections may come first
_SLACK: Final = 4  # that a worker may have more than another, and as many again as …
_SLACK_SHIFT: Final = 2  # … a quarter of what that one has; beyond it steps back
_STEP_BACK_S: Final = 0.001
_IN_VAIN: Final = 10  # times that one steps back for another that takes nothing, and may only wait for a processor
_MOST_AT_ONCE: Final = 64  # taken after more times than that, for then it hangs
_NO_FILES_S: Final = 0.5  # between attempts while there are no descriptors left

_log = structlog.get_logger()


class Door:
    """A listening socket, opened to callers. `make` makes the protocol of a connection, `count` tells how many of them
    there are."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        ledger: Ledger,
        make: Callable[[], asyncio.BaseProtocol],
        count: Callable[[], int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._ledger = ledger
        self._make = make
        self._count = count
        self._tls = tls
        self._coming: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False
        self._turns = 0
        self._in_vain = 0
        self._least = 0  # that another one had when this one last stepped back
        listener.setblocking(False)

    def open(self) -> None:
        """Take connections from now on."""
        self._is_open = True
        self.tell()
        self._loop.add_reader(self._listener.fileno(), self._knocked)

    async def close(self) -> None:
        """Take no more. What was taken has become a connection when this returns."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._listener.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._listener.close()
        self._ledger.close_door()
        if self._coming:
            await asyncio.wait(self._coming)

    def tell(self) -> int:
        """How many connections there are here, also to the others. To be called when one has ended."""
        mine = self._count() + len(self._coming)
        if self._is_open:
            self._ledger.open_door(mine)
        return mine

    def _knocked(self) -> None:
        """Somebody waits. All workers are told so at the same time."""
        mine = self.tell()
        least = self._ledger.fewest_connections_elsewhere()
        if least is not None and mine > least:
            if mine > least + _SLACK + (least >> _SLACK_SHIFT):
                self._in_vain = self._in_vain + 1 if least == self._least else 0
                self._least = least
                self._step_back(_STEP_BACK_S, self._return)
                return
            if self._turns < _TURNS:
                self._turns += 1  # it is told again in the next turn, if somebody still waits
                return
        self._turns = self._in_vain = 0
        self._take()

    def _return(self) -> None:
        """Those with fewer had their time. Whoever still waits is taken."""
        self._loop.add_reader(self._listener.fileno(), self._knocked)
        for _ in range(min(2 ** max(0, self._in_vain - _IN_VAIN), _MOST_AT_ONCE)):
            if not self._take():
                return

    def _step_back(self, pause_s: float, then: Callable[[], object]) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(pause_s, then)

    def _take(self) -> bool:
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            _log.error("worker can't take connections", why=str(error), again_in_s=_NO_FILES_S)
            self._step_back(_NO_FILES_S, self.open)
            return False
        taken.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(self._become(taken))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        self.tell()
        return True

    async def _become(self, taken: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, taken, **accepting(self._tls))
        except OSError as error:  # it was reset before it was looked at
            taken.close()
            _log.info("caller lost", why=str(error))

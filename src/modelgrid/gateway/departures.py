"""Callers who leave while nothing is read from them: told as soon as the kernel knows."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class Departures:
    """The sockets of one worker that aren't read from. The loop looks at a socket only to read from it or to write; so
    they have a poll of their own, which the loop looks at like at any file."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._poll: select.epoll | None = None
        self._watched: dict[int, Callable[[bool], None]] = {}

    def watch(self, file: int, tell: Callable[[bool], None]) -> None:
        """Call `tell` when the socket `file` was reset (True: nobody is there), and once when its other side has said
        that it sends no more (False), until `forget`. Such an end is seen when all before it has come."""
        if not hasattr(select, "epoll"):
            return  # only Linux tells; elsewhere it is noticed when the socket is read again
        if self._poll is None:
            self._poll = select.epoll()
            self._loop.add_reader(self._poll.fileno(), self._look)
        self._watched[file] = tell
        self._poll.register(file, select.EPOLLRDHUP)

    def forget(self, file: int) -> None:
        """Watch it no more; it must not be closed before."""
        if self._poll is not None and self._watched.pop(file, None) is not None:
            self._poll.unregister(file)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None
        self._watched.clear()

    def _look(self) -> None:
        assert self._poll is not None
        for file, events in self._poll.poll(0):
            tell = self._watched.get(file)
            if tell is None:
                continue  # by what another one was told
            is_gone = bool(events & (select.EPOLLHUP | select.EPOLLERR))
            if is_gone:
                self.forget(file)
            else:
                self._poll.modify(file, 0)  # a reset is told all the same
            tell(is_gone)

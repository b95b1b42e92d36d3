"""What the controller answers on the public port, by its own socket: nothing that has to be fast."""

from __future__ import annotations

import asyncio

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.exchange import EngineHead, Loss
from modelgrid.gateway.reply import EngineTrouble, Reply
from modelgrid.gateway.upstream import Origin, Pool, Upstream


class ControlRequest:
    """One request to it. It is sent once."""

    takes_chunks = False

    def __init__(self, pool: Pool, reply: Reply, head: bytes) -> None:
        self._pool = pool
        self._reply = reply
        self._head = head
        self._upstream: Upstream | None = None
        self._task: asyncio.Task[Upstream | Loss] | None = None

    @property
    def is_begun(self) -> bool:
        """See `Job`."""
        return self._reply.is_begun

    @property
    def sign(self) -> bytes:
        """See `Job`."""
        return self._reply.sign

    def start(self, origin: Origin) -> None:
        """Send it."""
        self._task = self._pool.loop.create_task(self._pool.connect(origin))
        self._task.add_done_callback(self._connected)

    def leave(self) -> None:
        """The caller is gone."""
        if self._task is not None:
            self._task.cancel()
        if self._upstream is not None:
            self._upstream.leave()
            self._upstream = None

    def stop(self) -> None:
        """The worker ends now."""
        self.leave()
        if not self._reply.is_begun:
            self._reply.refuse(answers.stopping())

    def pause(self) -> None:
        """See `Job`."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """See `Job`."""
        if self._upstream is not None:
            self._upstream.resume()

    def on_whole(self, head: EngineHead, body: bytes) -> None:
        """See `Exchange`."""
        self._upstream = None
        self._reply.whole(head, body)

    def on_head(self, head: EngineHead, length: int | None) -> None:
        """See `Exchange`."""
        self._reply.begin(head, length)

    def on_body(self, data: bytes, ended: bool) -> None:
        """See `Exchange`."""
        if ended:
            self._upstream = None
        try:
            self._reply.add(data, ended)
        except EngineTrouble:
            self.leave()
            self._reply.refuse(_away())

    def on_chunks(self, data: bytes) -> None:
        """See `Exchange`."""
        self._reply.add_chunks(data)

    def on_switch(self, lines: bytes, rest: bytes) -> bool:  # noqa: ARG002  see `Exchange`
        """See `Exchange`."""
        return False

    def on_room(self) -> None:
        """See `Exchange`."""

    def on_lost(self, loss: Loss) -> None:
        """See `Exchange`."""
        self._upstream = None
        if self._reply.is_begun:
            self._reply.break_off(answers.SERVER, "controller_lost", f"the controller {loss.why}")
        else:
            self._reply.refuse(_away())

    def _connected(self, task: asyncio.Task[Upstream | Loss]) -> None:
        self._task = None
        if task.cancelled():
            return
        result = task.result()
        if isinstance(result, Loss):
            self._reply.refuse(_away())
        else:
            self._upstream = result
            result.send(self, self._head, b"")


def _away() -> Answer:
    return answers.controller_away()

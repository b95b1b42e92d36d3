"""What the controller answers on the public port, by its own socket: nothing that has to be fast."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from modelgrid.gateway import answers
from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.exchange import EngineHead, Loss
from modelgrid.gateway.reply import Reply
from modelgrid.gateway.request import Head, Record, Request
from modelgrid.gateway.upstream import Origin, Pool, Upstream
from modelgrid.spec.messages import ANYONE, BY

CONTROL_BYTES: Final = 1 << 20  # of a request's body


def control_head(found: Found, head: Head, length: int) -> bytes:
    """A request's head, made anew: of the caller's own no header goes on that it could say something else by."""
    by = ANYONE if head.caller is None else head.caller.id
    lines = [
        b"%b %b%b HTTP/1.1\r\n" % (found.verb, found.path, head.query),
        b"host: controller\r\nconnection: close\r\n",
        b"%b: %b\r\n" % (BY, by.encode()),
        b"accept: %b\r\n" % head.read.get(b"accept", b"*/*"),
    ]
    if length:
        kind = head.read.get(b"content-type", b"application/octet-stream")
        lines.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (kind, length))
    elif found.verb != b"GET":
        lines.append(b"content-length: 0\r\n")
    return b"%b\r\n" % b"".join(lines)


class ControlRequest:
    """One request to it. It is sent once."""

    takes_chunks = False

    def __init__(
        self, pool: Pool, tasks: set[asyncio.Task[Upstream | Loss]], reply: Reply, head: bytes, body: bytes = b""
    ) -> None:
        self._pool = pool
        self._tasks = tasks  # connections that are being made
        self._reply = reply
        self._head = head
        self._body = body
        self._upstream: Upstream | None = None
        self._is_over = False
        self._began_at = monotonic()
        self.request: Request | None = None  # which a record is kept of, where requests are logged

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
        task = self._pool.loop.create_task(self._pool.connect(origin))
        self._tasks.add(task)  # the loop itself keeps none
        task.add_done_callback(self._connected)

    def leave(self) -> None:
        """The caller is gone."""
        self._is_over = True
        if self._upstream is not None:
            self._upstream.leave()
            self._upstream = None

    def stop(self) -> None:
        """The worker ends now."""
        if self._is_over:
            return
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
        self._note(head.status)
        self._upstream = None
        self._is_over = True
        self._reply.whole(head, body)

    def on_head(self, head: EngineHead, length: int | None) -> None:
        """See `Exchange`."""
        self._note(head.status)
        self._reply.begin(head, length)

    def on_body(self, data: bytes, ended: bool) -> None:
        """See `Exchange`."""
        if ended:
            self._upstream = None
            self._is_over = True
        self._reply.add(data, ended)

    def on_chunks(self, data: bytes) -> None:
        """See `Exchange`."""
        self._reply.add_chunks(data)

    def on_switch(self, lines: bytes, rest: bytes) -> bool:  # noqa: ARG002  see `Exchange`
        """See `Exchange`."""
        return False

    def on_room(self) -> None:
        """See `Exchange`."""

    def on_defect(self) -> None:
        """See `Exchange`."""
        self._upstream = None
        self._is_over = True
        self._reply.abort()

    def on_lost(self, loss: Loss) -> None:
        """See `Exchange`."""
        self._upstream = None
        self._is_over = True
        if self._reply.is_begun:
            self._reply.break_off(answers.SERVER, "controller_lost", f"the controller {loss.why}")
        else:
            self._reply.refuse(answers.controller_away())

    def _note(self, status: int) -> None:
        if self.request is not None:
            self.request.record = Record(status, duration_s=monotonic() - self._began_at)

    def _connected(self, task: asyncio.Task[Upstream | Loss]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        result = task.result()
        if self._is_over:
            if isinstance(result, Upstream):
                result.close()
        elif isinstance(result, Loss) or not result.is_open:
            self._is_over = True
            self._reply.refuse(answers.controller_away())
        else:
            self._upstream = result
            result.send(self, self._head, self._body)

"""One request's way: a replica is chosen, it is sent, the answer relayed; or it waits, or is sent again, or ends.

A request may be sent again while no byte of an answer has reached its caller, and only then. It is counted as in
flight at a replica from the choice of it until its answer has ended there, whatever the end.
"""

from __future__ import annotations

import asyncio

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.body import splice_model
from modelgrid.gateway.options import ATTEMPTS
from modelgrid.gateway.reply import EngineTrouble, Reply
from modelgrid.gateway.routes import Destination
from modelgrid.gateway.switchboard import Switchboard
from modelgrid.gateway.upstream import EngineHead, Loss, Upstream
from modelgrid.spec import Route


class Relay:
    """One request on its way. Ends by itself, or by `leave` or `stop`; then it has let go of everything."""

    # What most requests never need is said here, so that it costs them nothing.
    takes_chunks = False
    _destination: Destination | None = None  # counted as in flight there
    _upstream: Upstream | None = None
    _line: str | None = None  # the model whose line it stands in
    _wait_timer: asyncio.TimerHandle | None = None
    _waited_s = 0.0
    _attempts = 0
    _loss: Loss | None = None  # the last one
    _lost_by = ""
    _is_over = False

    def __init__(
        self, board: Switchboard, reply: Reply, model: str, path_end: bytes, lines: bytes, body: bytes
    ) -> None:
        self._board = board
        self._reply = reply
        self._named = self._model = model  # as the caller named it; as its route is called
        self._path_end = path_end  # below a target's base URL, with the query
        self._lines = lines
        self._body = body

    @property
    def is_begun(self) -> bool:
        """See `Job`."""
        return self._reply.is_begun

    def start(self) -> None:
        """Send it, or wait for a replica, or answer."""
        routes = self._board.routes
        route = routes.find(self._named) if routes else None
        if routes is None or route is None:
            self._refuse(answers.unknown_model(self._named, routes.table.routes if routes else ()))
            return
        self._model = route.model
        target = self._board.replicas.choose(route.targets)
        if target is None:
            self._wait(route)
            return
        self._attempts += 1
        self._board.replicas.acquire(target.replica)
        self._destination = routes.destination(target)
        self._send(self._destination, self._board.pool.take(self._destination.origin))

    # What the caller's connection calls.

    def leave(self) -> None:
        """The caller is gone."""
        if not self._is_over:
            self._let_go()

    def stop(self) -> None:
        """The worker ends now."""
        if self._is_over:
            return
        self._let_go()
        if self._reply.is_begun:
            self._reply.break_off(answers.SERVER, "stopping", "modelgrid is stopping")
        else:
            self._reply.refuse(answers.stopping())

    def pause(self) -> None:
        """The caller doesn't read as fast as the engine writes."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """After `pause`."""
        if self._upstream is not None:
            self._upstream.resume()

    # What the line calls.

    def proceed(self) -> None:
        """The table has something for this model."""
        self._leave_line()
        self.start()

    # What the engine's connection calls.

    def on_whole(self, head: EngineHead, body: bytes) -> None:
        """The engine has answered."""
        self._upstream = None
        self._let_go()
        self._board.replicas.finish(self._model)
        try:
            self._reply.whole(head, body)
        except EngineTrouble as trouble:
            self._reply.refuse(answers.engine_trouble(self._model, str(trouble)))

    def on_head(self, head: EngineHead, length: int | None) -> None:
        """The engine begins to answer."""
        self._reply.begin(head, length)

    def on_chunks(self, data: bytes) -> None:
        """The engine goes on, in chunks as the caller takes them."""
        self._reply.add_chunks(data)

    def on_switch(self, lines: bytes, rest: bytes) -> bool:
        """Nobody asked for that."""
        return False

    def on_room(self) -> None:
        """The request was sent whole."""

    def on_body(self, data: bytes, ended: bool) -> None:
        """The engine goes on, or ends."""
        if ended:
            self._upstream = None
            self._let_go()
            self._board.replicas.finish(self._model)
        try:
            self._reply.add(data, ended)
            self.takes_chunks = self._reply.takes_chunks
        except EngineTrouble as trouble:
            self._let_go()
            if self._reply.is_begun:
                self._reply.break_off(answers.ENGINE, "engine_trouble", f"the engine {trouble}")
            else:
                self._reply.refuse(answers.engine_trouble(self._model, str(trouble)))

    def on_lost(self, loss: Loss) -> None:
        """The engine won't go on."""
        self._upstream = None
        destination = self._destination
        assert destination is not None
        if loss.is_stale and not self._reply.is_begun and self._attempts < ATTEMPTS:
            self._attempts += 1  # it may as well be the request that the engine fails of
            self._send(destination, None)  # the same replica, by a connection that it can't have closed for idleness
            return
        self._board.report(destination.target.replica, loss)
        self._release()
        self._loss, self._lost_by = loss, destination.target.replica
        if self._reply.is_begun:
            self._let_go()
            self._reply.break_off(answers.ENGINE, "engine_lost", f"the engine {loss.why}")
        elif loss.outcome == "timed_out":  # it may be at work still: once more would be twice
            self._refuse(answers.engine_timed_out(self._model, self._lost_by, loss.why))
        elif self._attempts >= ATTEMPTS:
            self._refuse(answers.engine_failed(self._model, self._lost_by, loss.why, self._attempts))
        else:
            self.start()

    # Sending.

    def _send(self, destination: Destination, upstream: Upstream | None) -> None:
        if upstream is None:
            task = self._board.loop.create_task(self._board.pool.connect(destination.origin))
            self._board.tasks.add(task)
            task.add_done_callback(self._connected)
            return
        self._upstream = upstream
        served = destination.target.model
        body = self._body if served == self._named else splice_model(self._body, served)
        head = b"POST %b%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            destination.path,
            self._path_end,
            destination.lines,
            self._lines,
            len(body),
        )
        upstream.send(self, head, body)

    def _connected(self, task: asyncio.Task[Upstream | Loss]) -> None:
        self._board.tasks.discard(task)
        if task.cancelled():
            return
        result = task.result()
        if self._is_over:
            if isinstance(result, Upstream):
                self._board.pool.put_back(result, is_reusable=True)
        elif isinstance(result, Loss):
            self.on_lost(result)
        elif not result.is_open:
            self.on_lost(Loss("broke", "closed the connection before it was asked"))
        else:
            assert self._destination is not None
            self._send(self._destination, result)

    # Waiting.

    def _wait(self, route: Route) -> None:
        if route.unavailable is not None and not route.targets:
            self._refuse(answers.unavailable(route))
            return
        left_s = route.wait_s - self._waited_s
        if left_s <= 0:
            self._give_up(route)
        elif self._loss is None and self._board.waiting.count(route.model) >= route.queue:
            self._refuse(answers.queue_full(route))  # one that an engine lost had its place already
        else:
            self._line = route.model
            self._board.waiting.join(route.model, self, self._board.loop.time())
            self._wait_timer = self._board.loop.call_later(left_s, self._wait_out, route)

    def _wait_out(self, route: Route) -> None:
        self._leave_line()
        routes = self._board.routes
        self._give_up((routes.find(self._named) if routes else None) or route)

    def _leave_line(self) -> None:
        assert self._line is not None
        assert self._wait_timer is not None
        self._wait_timer.cancel()
        since = self._board.waiting.leave(self._line, self)
        self._waited_s += self._board.loop.time() - since
        self._line = None

    def _give_up(self, route: Route) -> None:
        if self._loss is None:
            self._refuse(answers.waited_out(route, self._waited_s))
            return
        why = f"{self._loss.why}, and nothing took its place within {self._waited_s:.1f} s"
        self._refuse(answers.engine_failed(route.model, self._lost_by, why, self._attempts))

    # Ending.

    def _refuse(self, answer: Answer) -> None:
        self._let_go()
        self._reply.refuse(answer)

    def _let_go(self) -> None:
        self._is_over = True
        if self._line is not None:
            self._leave_line()
        if self._upstream is not None:
            self._upstream.leave()
            self._upstream = None
        self._release()

    def _release(self) -> None:
        if self._destination is not None:
            self._board.replicas.release(self._destination.target.replica)
            self._destination = None

"""One request's time in lines: its rank there, until when it waits, and the signs of it that its caller gets."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.progress import Progress, comment
from modelgrid.gateway.waiting import Place, Waiter
from modelgrid.gateway.wishes import Wishes, priority_of, rank
from modelgrid.spec import Route

if TYPE_CHECKING:
    from modelgrid.gateway.routes import Lane
    from modelgrid.gateway.switchboard import Switchboard


class Stay:
    """Begins when its request first has to wait, and may be of several legs: a replica that a request was sent to may
    be lost before it answers. `close` at the request's end; signs go on until then, or until the answer has begun."""

    __slots__ = (
        "_beat",
        "_board",
        "_came_at",
        "_deadline",
        "_joined_at",
        "_model",
        "_place",
        "_progress",
        "_timer",
        "_waiter",
        "is_hurried",
        "lane",
        "rank",
        "waited_s",
    )

    def __init__(
        self,
        board: Switchboard,
        waiter: Waiter,
        came_at: float,
        wishes: Wishes | None,
        body: bytes,
        progress: Progress | None,
    ) -> None:
        self._board = board
        self._waiter = waiter
        self._came_at = came_at
        self._deadline: float | None = None
        if wishes is not None and wishes.timeout_s is not None:
            self._deadline = came_at + wishes.timeout_s
        self._progress: Progress | None = progress
        self._model = ""
        self._joined_at = 0.0
        self._place: Place | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self.lane: Lane | None = None  # that it stands in now
        self.rank = rank(priority_of(wishes, body), came_at)
        self.waited_s = 0.0  # in the legs before
        self.is_hurried = False  # its caller's own limit is what it waits by

    def left_s(self, route: Route) -> float:
        """For how long it waits at most; none where that is over."""
        left_s = route.wait_s - self.waited_s
        if self._deadline is None:
            return left_s
        own_s = self._deadline - monotonic()
        self.is_hurried = own_s < left_s
        return min(left_s, own_s)

    def join(self, lane: Lane, left_s: float, *, has_place: bool, is_flexible: bool) -> Answer | None:
        """Wait for a replica of a model, for `left_s` at most; or why not. Who has a place, since an engine has lost
        what was sent already, needs no other's."""
        board = self._board
        last: Waiter | None = None
        if not has_place and board.count_waiting(lane) >= lane.route.queue:
            last = board.last_behind(lane, self.rank)
            if last is None:
                return answers.queue_full(lane.route)
        self.lane = lane
        self._model = lane.model
        self._joined_at = monotonic()
        self._place = board.join_line(lane, self._waiter, self.rank, self.waited_s, is_flexible=is_flexible)
        self._timer = board.loop.call_later(left_s, self._waiter.wait_out)
        if self._progress is not None and self._beat is None:
            after_s = max(0.0, board.options.progress_after_s - self.waited_s)
            self._beat = board.loop.call_later(after_s, self._show)
        if last is not None:  # only now: what its end begins may want the place
            last.give_way()
        return None

    def leave(self) -> bool:
        """Wait no longer; tells whether there is still time to be served."""
        assert self.lane is not None
        assert self._place is not None
        assert self._timer is not None
        self._timer.cancel()
        leg_s = monotonic() - self._joined_at
        self.waited_s += leg_s
        self._board.leave_line(self.lane, self._place, leg_s)
        self.lane = self._place = self._timer = None
        if self._progress is not None and not self._progress.is_shown:
            self._stop_beating()
        return self._deadline is None or monotonic() < self._deadline

    def close(self) -> None:
        """The request is over, or its answer has begun."""
        if self.lane is not None:
            self.leave()
        self._stop_beating()

    def _show(self) -> None:
        progress = self._progress
        assert progress is not None
        self._beat = None
        if progress.is_begun:
            return
        progress.beat(self._sign())
        self._beat = self._board.loop.call_later(self._board.options.progress_every_s, self._show)

    def _sign(self) -> bytes:
        """How it stands, by the table in force."""
        waited_s = monotonic() - self._came_at
        if self.lane is None:
            return comment(self._model, "sent", waited_s)
        lane = self._board.find(self._model) or self.lane
        route = lane.route
        return comment(self._model, route.state, waited_s, route.starts_s, route.why)

    def _stop_beating(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

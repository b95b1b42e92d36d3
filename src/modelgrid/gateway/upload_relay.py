"""An upload's way: its model is known only when enough of it has come, and it is sent while the rest comes."""

from __future__ import annotations

from collections.abc import Callable

from modelgrid.gateway import answers
from modelgrid.gateway.accounts import CALLER_LEFT
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.exchange import Loss
from modelgrid.gateway.relay import Relay
from modelgrid.gateway.routes import Destination, Lane
from modelgrid.gateway.upload import Upload
from modelgrid.gateway.upstream import Upstream


class UploadRelay(Relay):
    """A request with a form. It can be sent again as long as all that was sent is held."""

    upload: Upload
    find: Callable[[str], Lane | Answer]  # the model of that name, if this request may be sent to it
    refuse: Callable[[Answer], None]  # a request that never became one of a model's

    _is_entered = False

    def on_model(self, named: str) -> None:
        """See `Attendant`."""
        lane = self.find(named)
        if isinstance(lane, Answer):
            self._turn_away(lane)
            return
        self._named = named
        self._is_entered = True
        self.enter(lane)

    def on_refused(self, answer: Answer) -> None:
        """See `Attendant`."""
        if self._is_over:
            return
        if not self._is_entered:
            self._turn_away(answer)
        elif self._reply.is_begun:
            self._break_off(answer.kind, answer.code, answer.message)
        else:
            self._refuse(answer)

    def leave(self) -> None:
        """The caller is gone."""
        if self._is_entered:
            super().leave()
        elif not self._is_over:
            self._is_over = True
            self._board.meters.turned_away(self._found.operation, CALLER_LEFT)

    def stop(self) -> None:
        """The worker ends now."""
        if self._is_entered:
            super().stop()
        elif not self._is_over:
            self._turn_away(answers.stopping())

    def on_room(self) -> None:
        """The engine takes more of it."""
        self.upload.on_room()

    def on_lost(self, loss: Loss) -> None:
        """The engine won't go on."""
        self.upload.stop()
        super().on_lost(loss)

    def _drop_answer(self) -> None:
        self.upload.stop()  # what comes until it is sent elsewhere is held
        super()._drop_answer()

    @property
    def _can_be_resent(self) -> bool:
        return self.upload.can_be_resent

    def _transmit(self, upstream: Upstream, destination: Destination) -> None:
        self._upstream = upstream
        found = self._found
        head = b"%b %b%b%b HTTP/1.1\r\n%b%b%b\r\n" % (
            found.verb,
            destination.root if found.is_rooted else destination.base,
            found.path,
            self._request.head.query,
            destination.lines,
            self._lines,
            self.upload.framing(destination.served),
        )
        upstream.send(self, head, b"", is_whole=False)
        self.upload.flow(upstream, destination.served)

    def _turn_away(self, answer: Answer) -> None:
        self._is_over = True
        self.refuse(answer)

"""A request about what an engine made before: a response, a video. Its id alone tells which engine that was."""

from __future__ import annotations

from collections.abc import Sequence

from modelgrid.gateway import answers
from modelgrid.gateway.relay import Relay
from modelgrid.gateway.routes import Lane
from modelgrid.gateway.standing import Standing
from modelgrid.gateway.upstream import EngineHead


class Search(Relay):
    """Asks one replica after the other until one knows it. Nothing is remembered for it, so each worker finds what
    any of them has made, and after a restart too; it costs a look at those that don't know it."""

    _left: tuple[tuple[Lane, Standing], ...] = ()

    def seek(self, lanes: Sequence[Lane]) -> None:
        """Begin, with all that may know."""
        self._lane = self._named_lane = lanes[0]
        caller = self._caller
        if caller is not None and caller.gate is not None:
            refusal = caller.gate.admit(self._began_at)
            if refusal is not None:
                self._refuse(answers.over_quota(f"the key {caller.name!r}", refusal))
                return
            self._caller_gate = caller.gate
        places = [(lane, standing) for lane in lanes for standing in lane.standings if not standing.breaker.is_out]
        self._left = tuple(places)
        self._again()

    def _again(self) -> None:
        if not self._left:
            self._refuse(answers.unknown_object(self._request.head.path, self._named_lane.route))
            return
        (self._lane, standing), self._left = self._left[0], self._left[1:]
        self._attempts = 0
        self._go(self._lane, standing)

    def _goes_elsewhere(self, head: EngineHead) -> bool:
        if head.status != 404 or not self._left:
            return False
        self._drop_answer()
        self._again()
        return True

    @property
    def _is_edited(self) -> bool:
        return False

    def _fail(self, answer: answers.Answer) -> None:
        if self._left:
            self._again()
        else:
            self._refuse(answer)

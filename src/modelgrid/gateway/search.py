"""A request about what an engine made before: a response, a video. Its id alone tells which engine that was."""

from __future__ import annotations

from collections.abc import Sequence

from modelgrid.gateway import answers
from modelgrid.gateway.access import Caller
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.exchange import EngineHead
from modelgrid.gateway.passes import Passes
from modelgrid.gateway.relay import Relay
from modelgrid.gateway.routes import Lane, Routes
from modelgrid.gateway.standing import Standing
from modelgrid.gateway.usage import Usage
from modelgrid.spec.operations import SPEECH, VIDEOS

_KNOWS_NOT = frozenset((404, 405, 501))  # the id, or that there are such things
_KEPT = frozenset((SPEECH, VIDEOS))  # voices, and films, which are kept: a model that isn't loaded knows them, too


def lanes_that_may_know(routes: Routes, operation: str, caller: Caller | None) -> list[Lane]:
    """Models that may have made something for a caller: those that it may use, by their own name or another."""
    allowed = [lane for lane in routes.lanes.values() if caller is None or caller.may_use(lane.model)]
    found = {real.model: real for lane in allowed for real in lanes_behind(lane, routes, operation)}
    return [lane for lane in found.values() if lane.standings or operation in _KEPT]


def lanes_behind(lane: Lane, routes: Routes, operation: str) -> list[Lane]:
    """The models that a name stands for."""
    behind = [lane] if lane.options is None else [routes.lanes[option.route.model] for option in lane.options.all]
    return [real for real in behind if operation in real.operations]


class Search(Relay):
    """Asks one replica after the other until one knows it. Nothing is remembered for it, so each worker finds what
    any of them has made, and after a restart too; it costs a look at those that don't know it."""

    _left: tuple[tuple[Lane, Standing], ...] = ()
    _cold: Lane | None = None  # the one model that isn't loaded and may know it: loaded when no other does
    _is_last = False  # that is being waited for, or asked
    _unsure = ""  # why one that may know it can't say so

    def seek(self, lanes: Sequence[Lane]) -> None:
        """Begin, with all that may know."""
        self._lane = self._named_lane = lanes[0]
        cold = [lane for lane in lanes if not lane.standings]
        if len(cold) == 1 and self._found.operation in _KEPT:
            self._cold = cold[0]
        caller = self._caller
        if caller is not None and caller.gate is not None:
            self._passes = Passes()
            refusal = self._passes.admit(caller, None, self._began_at)
            if refusal is not None:
                self._refuse(refusal)
                return
        places = [(lane, standing) for lane in lanes for standing in lane.standings]
        self._left = tuple(place for place in places if not place[1].breaker.is_out)
        if len(self._left) < len(places):
            out = next(standing for _, standing in places if standing.breaker.is_out)
            self._unsure = f"{out.replica} failed a moment ago"
        self._again()

    def _again(self) -> None:
        if self._is_last:
            super()._again()
            return
        if self._loss is not None:
            self._unsure = f"{self._lost_by} {self._loss.why}"
        path = self._request.head.path
        # A table that came meanwhile may have dropped some, and counts on nothing going there any more.
        self._left = tuple(place for place in self._left if place[1].is_listed)
        if self._left:
            (self._lane, standing), self._left = self._left[0], self._left[1:]
            self._named_lane = self._lane
            self._attempts = 0
            self._go(self._lane, standing)
        elif self._unsure:
            self._refuse(answers.object_unknown_now(path, self._unsure))
        elif self._cold is not None:
            self._is_last = True
            self._named = self._cold.model
            self._named_lane = self._cold
            self._start(self._cold)
        else:
            self._refuse(answers.unknown_object(path))

    def _goes_elsewhere(self, head: EngineHead) -> bool:
        if self._is_last:
            return super()._goes_elsewhere(head)
        if head.status in _KNOWS_NOT:
            if not self._left and not self._unsure and self._cold is None:
                return False
        elif head.status >= 500 and self._left:
            assert self._standing is not None
            self._unsure = f"{self._standing.replica} answered {head.status}"
        else:
            return False
        self._drop_answer()
        self._again()
        return True

    @property
    def _is_edited(self) -> bool:
        return False

    def _fail(self, answer: Answer) -> None:
        if self._left and not self._is_last:
            self._again()
        else:
            self._refuse(answer)

    def _end(self, status: int, usage: Usage | None = None) -> None:  # noqa: ARG002  counted when it was made
        self._usage = None
        super()._end(status)

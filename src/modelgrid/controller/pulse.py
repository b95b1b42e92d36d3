"""The pulses of all models: what gateway workers tell, gathered until the next lap folds it in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelgrid.planner.pulse import CHOOSE_BEATS, Told, fold
from modelgrid.spec import Load, ModelName, ModelSpec, Replica, State
from modelgrid.spec.pulse import BEAT_S, Pulse

# Models whose course is chosen anew in one lap: each takes some hundredths of a second. Where there are more of them
# than laps of a second have room for, each waits longer, so that none is left out.
CHOICES = 3
_TTFT = 1_024  # first tokens of a model that are kept until the next lap: the newest
_NEVER = ("", Pulse())


@dataclass(slots=True)
class _News:
    """What was told of a model since the last fold."""

    arrived: int = 0
    ended: int = 0
    tokens: int = 0
    ttft: tuple[float, ...] = ()


class Pulses:
    """One pulse a model. What was learned of a model is forgotten when what it runs as changes."""

    def __init__(self) -> None:
        self._news: dict[str, _News] = {}
        self._pulses: dict[ModelName, tuple[str, Pulse]] = {}  # with the revision that it is of
        self._chosen = 0  # in this lap
        self._with_objective = 0

    def load(self, load: Load) -> None:
        """Take in what a worker tells."""
        for model, count in load.arrived.items():
            self._of(model).arrived += count
        for model, count in load.requests.items():
            self._of(model).ended += count
        for model, (read, written) in load.tokens.items():
            self._of(model).tokens += read + written
        for model, took_s in load.ttft.items():
            news = self._of(model)
            news.ttft = (*news.ttft, *took_s)[-_TTFT:]

    def beat(
        self, spec: ModelSpec, replicas: Sequence[Replica], waiting: int, now: float, load_s: float | None = None
    ) -> Pulse:
        """The pulse of a model, with all that was told until now. `replicas` are its own, in any state; a start of one
        takes `load_s`, as far as is known."""
        revision, pulse = self._pulses.get(spec.name, _NEVER)
        news = self._news.pop(spec.name, _News())
        ready = [replica for replica in replicas if replica.state is State.READY]
        busy = [replica.in_flight for replica in ready]
        told = Told(
            arrived=news.arrived,
            ended=news.ended,
            tokens=news.tokens,
            ttft=news.ttft,
            in_flight=None if None in busy else sum(count or 0 for count in busy),
            waiting=waiting,
            ready=len(ready),
            load_s=load_s,
        )
        before = pulse if revision == spec.revision else Pulse()
        beats = max(CHOOSE_BEATS, int(self._with_objective / (CHOICES * BEAT_S)))
        after = fold(before, told, now, spec.scaling, may_choose=self._chosen < CHOICES, choose_beats=beats)
        self._chosen += after.chosen != before.chosen
        self._pulses[spec.name] = (spec.revision, after)
        return after

    def last(self, name: ModelName) -> Pulse:
        """The pulse of a model as of its last beat."""
        return self._pulses.get(name, _NEVER)[1]

    def keep(self, names: Iterable[ModelName]) -> None:
        """Forget all other models. A lap ends so."""
        kept = frozenset(names)
        self._chosen = 0
        self._with_objective = sum(pulse.course is not None for _, pulse in self._pulses.values())
        self._pulses = {name: known for name, known in self._pulses.items() if name in kept}
        self._news = {name: news for name, news in self._news.items() if name in kept}

    def _of(self, model: str) -> _News:
        return self._news.setdefault(model, _News())

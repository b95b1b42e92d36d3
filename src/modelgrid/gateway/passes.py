"""The quotas that one request counts against: its key's, that of the key's group, its model's, and that of the model
behind a virtual one."""

from __future__ import annotations

from modelgrid.gateway import answers
from modelgrid.gateway.access import Caller
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.quota import Gate
from modelgrid.gateway.routes import Lane


class Passes:
    """Those that let it in. It is counted there until `settle`."""

    __slots__ = ("_caller", "_choice", "_choice_at", "_choice_model", "_group", "_model")

    def __init__(self) -> None:
        self._caller: Gate | None = None
        self._group: Gate | None = None
        self._model: Gate | None = None
        self._choice: Gate | None = None
        self._choice_model = ""
        self._choice_at = 0.0

    def admit(self, caller: Caller | None, lane: Lane | None, now: float) -> Answer | None:
        """Let it in, or say why not: then it counts nowhere."""
        if caller is not None and caller.gate is not None:
            refusal = caller.gate.admit(now)
            if refusal is not None:
                return answers.over_quota(f"the key {caller.name!r}", refusal)
            self._caller = caller.gate
            if caller.group_gate is not None:
                refusal = caller.group_gate.admit(now)
                if refusal is not None:
                    self._withdraw(now)
                    return answers.over_quota(f"the group {caller.group!r} of the key {caller.name!r}", refusal)
                self._group = caller.group_gate
        if lane is not None and lane.gate is not None:
            refusal = lane.gate.admit(now)
            if refusal is not None:
                self._withdraw(now)
                return answers.over_quota(f"the model {lane.model}", refusal)
            self._model = lane.gate
        return None

    def choose(self, lane: Lane, now: float) -> Answer | None:
        """The same for one of the models behind a virtual one. The one that was tried before has its place back."""
        if self._choice is not None and self._choice_model == lane.model:
            return None
        if lane.gate is not None:
            refusal = lane.gate.admit(now)
            if refusal is not None:
                return answers.over_quota(f"the model {lane.model}", refusal)
        if self._choice is not None:
            self._choice.withdraw(self._choice_at)
        self._choice, self._choice_model, self._choice_at = lane.gate, lane.model, now
        return None

    def settle(self, tokens: int, now: float) -> None:
        """It has ended, at the cost of so many tokens."""
        for gate in (self._caller, self._group, self._model, self._choice):
            if gate is not None:
                gate.release()
                gate.spend(tokens, now)

    def _withdraw(self, now: float) -> None:
        if self._group is not None:
            self._group.withdraw(now)
        if self._caller is not None:
            self._caller.withdraw(now)
        self._caller = self._group = None

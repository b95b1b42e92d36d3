"""Weights: where a model's files come from, what they weigh, and which of them lie on this machine."""

from modelgrid.weights.held import Held, list_weights, needs_pull, remove, resolve
from modelgrid.weights.hub import hub_answers
from modelgrid.weights.pull import Progress, pull
from modelgrid.weights.source import WeightsError, hub_id
from modelgrid.weights.weigh import weigh

__all__ = [
    "Held",
    "Progress",
    "WeightsError",
    "hub_answers",
    "hub_id",
    "list_weights",
    "needs_pull",
    "pull",
    "remove",
    "resolve",
    "weigh",
]

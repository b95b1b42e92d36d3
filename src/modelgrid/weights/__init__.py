"""Weights: where a model's files come from, what they weigh, and which of them lie on this machine."""

from modelgrid.spec.source import parse_source
from modelgrid.weights.explain import WeightsError
from modelgrid.weights.held import Held, list_weights, needs_pull, remove, resolve
from modelgrid.weights.hub import hub_answers
from modelgrid.weights.inspect import Content, inspect
from modelgrid.weights.pull import Progress, pull
from modelgrid.weights.weigh import weigh, weigh_held

__all__ = [
    "Content",
    "Held",
    "Progress",
    "WeightsError",
    "hub_answers",
    "inspect",
    "list_weights",
    "needs_pull",
    "parse_source",
    "pull",
    "remove",
    "resolve",
    "weigh",
    "weigh_held",
]

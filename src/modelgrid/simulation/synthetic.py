"""Synthetic traces, each from a seed: what arrives when, for which model, with how many tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modelgrid.simulation.request import PATIENCE_S, Request
from modelgrid.spec import ModelName


@dataclass(frozen=True, slots=True)
class Shape:
    """What the requests of a synthetic trace have in common."""

    rate: float  # requests a second, on average, over all models
    duration_s: float
    input: float = 600.0  # tokens, the median
    output: float = 150.0  # tokens, the median
    spread: float = 0.8  # of their logarithms: what conversations have
    deadline_s: float | None = None
    patience_s: float = PATIENCE_S


def zipf_weights(count: int, exponent: float) -> list[float]:
    """The shares of `count` models of which the n-th is asked for ``1 / n ** exponent`` as often as the first."""
    weights = [1 / rank**exponent for rank in range(1, count + 1)]
    return [weight / sum(weights) for weight in weights]


def turns(models: Sequence[ModelName], shape: Shape, seed: int) -> list[Request]:
    """Models in turn: A, B, A, B, …, at random moments."""
    dice = random.Random(seed)
    return [_request(at, models[number % len(models)], shape, dice) for number, at in enumerate(_arrivals(shape, dice))]


def zipf(models: Sequence[ModelName], shape: Shape, seed: int, exponent: float = 1.1) -> list[Request]:
    """Few models asked for often, and many seldom."""
    dice = random.Random(seed)
    weights = zipf_weights(len(models), exponent)
    return [_request(at, dice.choices(models, weights)[0], shape, dice) for at in _arrivals(shape, dice)]


def bursts(
    models: Sequence[ModelName], shape: Shape, seed: int, length_s: float = 20.0, share: float = 0.8
) -> list[Request]:
    """One model at a time is asked for a lot, for a while, in an order by chance; `share` of all requests are of such
    a burst, the rest for any model."""
    dice = random.Random(seed)
    requests = []
    hot, until = models[0], 0.0
    for at in _arrivals(shape, dice):
        if at >= until:
            hot, until = dice.choice(models), at + dice.expovariate(1 / length_s)
        model = hot if dice.random() < share else dice.choice(models)
        requests.append(_request(at, model, shape, dice))
    return requests


def steady(models: Sequence[ModelName], shape: Shape, seed: int) -> list[Request]:
    """Every model as often as the others, at random moments."""
    return zipf(models, shape, seed, exponent=0.0)


def daily(models: Sequence[ModelName], shape: Shape, seed: int, period_s: float = 3600.0) -> list[Request]:
    """Arrivals that swell and ebb, from a fifth of the rate to nearly twice it, once a period."""
    dice = random.Random(seed)
    fuller = Shape(
        shape.rate * 1.8,
        shape.duration_s,
        shape.input,
        shape.output,
        shape.spread,
        shape.deadline_s,
        shape.patience_s,
    )
    requests = []
    for at in _arrivals(fuller, dice):
        strength = (1 - 0.8 * math.cos(2 * math.pi * at / period_s)) / 1.8
        if dice.random() < strength:
            requests.append(_request(at, dice.choice(models), shape, dice))
    return requests


Synthetic = Callable[[Sequence[ModelName], Shape, int], list[Request]]
SYNTHETIC: dict[str, Synthetic] = {"turns": turns, "zipf": zipf, "bursts": bursts, "steady": steady, "daily": daily}


def _arrivals(shape: Shape, dice: random.Random) -> Iterator[float]:
    at = dice.expovariate(shape.rate)
    while at < shape.duration_s:
        yield at
        at += dice.expovariate(shape.rate)


def _request(at: float, model: ModelName, shape: Shape, dice: random.Random) -> Request:
    return Request(
        at=at,
        model=model,
        input=_tokens(shape.input, shape, dice),
        output=_tokens(shape.output, shape, dice),
        deadline_s=shape.deadline_s,
        patience_s=shape.patience_s,
    )


def _tokens(median: float, shape: Shape, dice: random.Random) -> int:
    return max(1, round(dice.lognormvariate(math.log(median), shape.spread)))

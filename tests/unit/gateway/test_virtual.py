"""Which of the models behind a virtual one is tried, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from modelgrid.gateway.affinity import digest
from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.standing import Standing
from modelgrid.gateway.virtual import Options
from modelgrid.spec import Choice, Route, Target, Unavailable, Virtual
from modelgrid.spec.operations import CHAT, EMBEDDINGS

GONE = Unavailable(why="it crash-loops", retry_after_s=9)


class Models:
    """Real models, by name, with replicas that have so much in flight each."""

    def __init__(self) -> None:
        self.ledger = Ledger.alone()
        self.routes: dict[str, Route] = {}
        self.replicas: dict[str, tuple[Standing, ...]] = {}

    def add(
        self,
        model: str,
        *in_flight: int,
        operations: tuple[str, ...] = (CHAT,),
        unavailable: Unavailable | None = None,
        virtual: Virtual | None = None,
    ) -> None:
        replicas = tuple(Standing(f"{model}-{n}") for n in range(len(in_flight)))
        for standing, count in zip(replicas, in_flight, strict=True):
            standing.in_flight = count
        self.replicas[model] = replicas
        self.routes[model] = Route(
            model=model,
            slot=len(self.routes) + 1,
            operations=operations,
            targets=tuple(Target(replica=one.replica, url="http://h/v1", model="x") for one in replicas),
            unavailable=unavailable,
            virtual=virtual,
        )

    def options(self, virtual: Virtual) -> Options:
        return Options(virtual, self.routes.get, self.replicas.__getitem__)

    def order(
        self, virtual: Virtual, operation: str = CHAT, key: int = 7, allowed: frozenset[str] | None = None
    ) -> list[str]:
        """The models' names."""
        found = self.options(virtual).order(operation, self.ledger, key, allowed)
        return [option.route.model for option in found]


@pytest.fixture
def models() -> Models:
    return Models()


def first(*names: str, spill_over: int | None = None, fall_back: bool = True) -> Virtual:
    return Virtual(choices=tuple(Choice(model=name) for name in names), spill_over=spill_over, fall_back=fall_back)


def weighted(spill_over: int | None = None, **weights: float) -> Virtual:
    choices = tuple(Choice(model=name, weight=weight) for name, weight in weights.items())
    return Virtual(choices=choices, choose="weight", spill_over=spill_over)


# first


def test_the_first_that_is_warm_is_tried_first(models: Models) -> None:
    models.add("a")
    models.add("b", 5)
    models.add("c", 0)
    assert models.order(first("a", "b", "c")) == ["b", "c", "a"]


def test_where_none_is_warm_the_first_is_waited_for(models: Models) -> None:
    for name in "abc":
        models.add(name)
    assert models.order(first("a", "b", "c")) == ["a", "b", "c"]


def test_a_model_all_of_whose_replicas_are_left_alone_is_not_warm(models: Models) -> None:
    models.add("a", 0, 0)
    models.add("b", 0)
    for standing in models.replicas["a"]:
        standing.breaker.lose(0)
    assert models.order(first("a", "b")) == ["b", "a"]


def test_a_full_model_spills_over(models: Models) -> None:
    models.add("a", 3, 5)
    models.add("b", 3)
    assert models.order(first("a", "b", spill_over=5)) == ["a", "b"]
    assert models.order(first("a", "b", spill_over=4)) == ["b", "a"]
    assert models.order(first("a", "b")) == ["a", "b"]


def test_what_waits_fills_a_model_too(models: Models) -> None:
    models.add("a", 0)
    models.add("b", 0)
    for _ in range(2):
        models.ledger.wait(models.routes["a"].slot)
    assert models.order(first("a", "b", spill_over=2)) == ["b", "a"]


def test_room_is_in_replicas_that_serve(models: Models) -> None:
    models.add("a", 2, 2)
    models.add("b", 0)
    models.replicas["a"][0].breaker.lose(0)
    assert models.order(first("a", "b", spill_over=3)) == ["b", "a"]


def test_where_none_has_room_the_least_full_comes_first_and_the_cold_last(models: Models) -> None:
    models.add("a", 9)
    models.add("b")
    models.add("c", 7, 7)
    models.add("d", 7)
    assert models.order(first("a", "b", "c", "d", spill_over=5)) == ["c", "d", "a", "b"]


def test_an_unavailable_model_is_left_out(models: Models) -> None:
    models.add("a", unavailable=GONE)
    models.add("b")
    assert models.order(first("a", "b")) == ["b"]


def test_unavailable_models_alone_say_why(models: Models) -> None:
    models.add("a", unavailable=GONE)
    models.add("b", unavailable=GONE)
    assert models.order(first("a", "b")) == ["a"]


def test_a_model_that_is_ready_is_available_whatever_is_said(models: Models) -> None:
    models.add("a", 0, unavailable=GONE)
    models.add("b", 0)
    assert models.order(first("a", "b")) == ["a", "b"]


def test_without_fall_back_there_is_one(models: Models) -> None:
    models.add("a")
    models.add("b", 0)
    assert models.order(first("a", "b", fall_back=False)) == ["b"]


def test_models_that_do_not_serve_the_operation_are_left_out(models: Models) -> None:
    models.add("a", 0)
    models.add("b", 0, operations=(EMBEDDINGS,))
    assert models.order(first("a", "b"), EMBEDDINGS) == ["b"]
    assert models.order(first("a"), EMBEDDINGS) == []


def test_a_caller_gets_the_models_that_it_may_use(models: Models) -> None:
    models.add("a", 0)
    models.add("b", 0)
    assert models.order(first("a", "b"), allowed=frozenset("b")) == ["b"]
    assert models.order(first("a", "b"), allowed=frozenset()) == []


def test_models_that_are_gone_or_virtual_themselves_are_left_out(models: Models) -> None:
    models.add("a", 0)
    models.add("v", virtual=first("v"))
    assert models.order(first("v", "gone", "a")) == ["a"]


def test_parameters_come_with_the_choice(models: Models) -> None:
    models.add("a", 0)
    choice = Choice(model="a")
    (option,) = models.options(Virtual(choices=(choice,))).order(CHAT, models.ledger, 1)
    assert option.choice is choice
    assert option.standings is models.replicas["a"]


# weight


def shares(models: Models, virtual: Virtual, number: int = 4000) -> Counter[str]:
    return Counter(models.order(virtual, key=digest(b"%d" % n))[0] for n in range(number))


def test_each_gets_its_weights_share_cold_or_warm(models: Models) -> None:
    models.add("a", 0)
    models.add("b")
    models.add("c", 0)
    found = shares(models, weighted(a=70, b=20, c=10))
    assert {name: round(count / 40) for name, count in found.items()} == pytest.approx(
        {"a": 70, "b": 20, "c": 10}, abs=3
    )


def test_the_rest_is_the_order_to_fall_back_in(models: Models) -> None:
    for name in "abc":
        models.add(name, 0)
    assert sorted(models.order(weighted(a=1, b=1, c=1))) == ["a", "b", "c"]


def test_a_model_without_weight_is_for_falling_back(models: Models) -> None:
    models.add("a", 0)
    models.add("b", 0)
    assert all(models.order(weighted(a=0, b=0.1), key=digest(b"%d" % n)) == ["b", "a"] for n in range(100))


def test_a_session_stays_with_its_model_when_another_leaves(models: Models) -> None:
    for name in "abc":
        models.add(name, 0)
    virtual = weighted(a=1, b=1, c=1)
    keys = [digest(b"%d" % n) for n in range(500)]
    before = {key: models.order(virtual, key=key) for key in keys}
    models.add("c", unavailable=GONE)
    for key in keys:
        assert models.order(virtual, key=key) == [name for name in before[key] if name != "c"]


def test_a_full_model_hands_on_its_share(models: Models) -> None:
    models.add("a", 9)
    models.add("b", 0)
    models.add("c", 0)
    found = shares(models, weighted(spill_over=5, a=8, b=1, c=1), 1000)
    assert set(found) == {"b", "c"}
    assert found["b"] == pytest.approx(500, abs=80)


@pytest.mark.parametrize("key", [0, 1, (1 << 61) - 2, (1 << 61) - 1])
def test_any_key_will_do(models: Models, key: int) -> None:
    models.add("a", 0)
    models.add("b", 0)
    assert sorted(models.order(weighted(a=1, b=1), key=key)) == ["a", "b"]

"""Slots: one for each name, its own for as long as it lives, and taken again as late as can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelgrid.controller.slots import Named, Slots, allot, recovered
from modelgrid.spec import AccessKey, Route, RoutingTable, Target
from modelgrid.spec.messages import SLOTS

SIZE = 7
NAMES = st.sets(st.tuples(st.sampled_from(["key", "model", "replica"]), st.sampled_from("abcd")))


def models(*names: str) -> list[Named]:
    return [("model", name) for name in names]


@given(st.lists(NAMES))
def test_names_that_live_at_once_share_no_slot_and_keep_theirs(laps: list[set[Named]]) -> None:
    slots = Slots()
    for names in laps:
        before = slots
        slots = allot(before, sorted(names), SIZE)
        assert slots.held.keys() <= names
        assert len(slots.held) == min(len(names), SIZE)
        assert len(set(slots.held.values())) == len(slots.held)
        assert all(1 <= slot <= SIZE for slot in slots.held.values())
        assert all(slots.held[name] == before.held[name] for name in names & before.held.keys())


@given(st.lists(NAMES))
def test_slots_are_handed_out_in_a_circle(laps: list[set[Named]]) -> None:
    slots = Slots()
    for names in laps:
        before = slots
        slots = allot(before, sorted(names), SIZE)
        kept = {slot for name, slot in before.held.items() if name in names}
        fresh = [slot for name, slot in slots.held.items() if name not in before.held]
        circle = [(before.last + step) % SIZE + 1 for step in range(SIZE)]
        assert fresh == [slot for slot in circle if slot not in kept][: len(fresh)]


def test_a_freed_slot_is_not_the_next_to_be_taken() -> None:
    slots = allot(Slots(), models("a", "b"))
    slots = allot(slots, models("a", "c"))
    assert slots == Slots({("model", "a"): 1, ("model", "c"): 3}, last=3)


def test_who_finds_none_left_has_zero_and_gets_the_first_that_comes_free() -> None:
    slots = allot(Slots(), models("a", "b", "c"), size=2)
    assert [slots.of("model", name) for name in "abc"] == [1, 2, 0]
    assert allot(slots, models("b", "c"), size=2).of("model", "c") == 1


def test_a_key_and_a_model_of_one_name_are_two() -> None:
    slots = allot(Slots(), [("key", "a"), ("model", "a")])
    assert slots.of("key", "a") != slots.of("model", "a")


def test_the_next_controller_goes_on_where_the_last_one_was() -> None:
    target = Target(replica="a-1", url="http://127.0.0.1/v1", model="a", slot=3)
    table = RoutingTable(
        number=1,
        routes=(Route(model="a", slot=2, targets=(target,)), Route(model="none", slot=0)),
        keys=(AccessKey(id="k", name="n", sha256="0", slot=1),),
        last_slot=9,
    )
    slots = recovered(table)
    assert slots == Slots({("key", "k"): 1, ("model", "a"): 2, ("replica", "a-1"): 3}, last=9)
    assert allot(slots, [("model", "a"), ("model", "b")]).held == {("model", "a"): 2, ("model", "b"): 10}
    assert recovered(None) == Slots()


def test_a_table_that_makes_no_sense_gives_nobody_a_slot_of_another() -> None:
    routes = tuple(Route(model=name, slot=slot) for name, slot in (("a", 5), ("b", 5), ("c", SLOTS + 1), ("d", -1)))
    assert recovered(RoutingTable(number=1, routes=routes, last_slot=SLOTS + 9)) == Slots({("model", "a"): 5}, SLOTS)


def test_every_slot_can_be_had() -> None:
    slots = allot(Slots(last=SLOTS - 5), models(*map(str, range(SLOTS + 1))))
    assert set(slots.held.values()) == set(range(1, SLOTS + 1))

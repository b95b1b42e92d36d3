"""Who gets memory, and who gives it up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.planner import plan
from modelgrid.spec import (
    Action,
    Drain,
    Failures,
    ModelName,
    Replica,
    ReplicaId,
    Start,
    State,
    Stop,
    Unknown,
    Wish,
    shares_of,
)
from unit.planner.fleets import NOW, fleet, model, replica

WAITED = "requests waited for it"


def start(id: str, memory_bytes: int = 4, why: str = WAITED) -> Start:
    return Start(ReplicaId(id), ModelName(id.rpartition("-")[0]), shares_of(memory_bytes), why)


def for_a(id: str) -> Drain:
    return Drain(ReplicaId(id), "its memory is needed for a")


def test_a_request_starts_what_fits() -> None:
    assert plan(fleet([model(waiting=1)])) == [start("a-7")]


def test_what_fits_exactly_starts() -> None:
    assert plan(fleet([model(memory_bytes=10, waiting=1)])) == [start("a-7", 10)]


def test_without_a_request_nothing_starts() -> None:
    assert plan(fleet([model()])) == []


def test_one_replica_is_started_not_one_each_lap() -> None:
    assert plan(fleet([model(waiting=1)], [replica(state=State.STARTING)])) == []


def test_models_that_fit_together_start_together_and_each_has_an_id_of_its_own() -> None:
    asked = [model("a", 4, waiting=1), model("b", 4, waiting=1, waited_s=1), model("c", 4, waiting=1)]
    assert plan(fleet(asked)) == [start("b-7"), start("a-8")]


def test_an_id_is_never_used_twice_even_where_the_count_was_lost() -> None:
    given = [replica("b-1", memory_bytes=1), replica("a-2", State.STOPPING, 1, stops=1, in_state_s=1)]
    assert plan(fleet([model(waiting=1), model("b", 1)], given, next=1)) == [start("a-1")]
    given = [replica("a-1", State.STOPPING, 1, stops=1, in_state_s=1), *given[1:]]
    assert plan(fleet([model(waiting=1)], given, next=1)) == [start("a-3")]


def test_an_id_is_safe_as_a_file_name() -> None:
    asked = model("Org/Some_Model: 7B!", waiting=1)
    [action] = plan(fleet([asked]))
    assert isinstance(action, Start)
    assert action.replica == "org-some-model-7b-7"
    [action] = plan(fleet([model("模型", waiting=1)]))
    assert isinstance(action, Start)
    assert action.replica == "model-7"


@pytest.mark.parametrize("state", [State.DRAINING, State.STOPPING, State.FAILED])
def test_memory_counts_as_free_only_when_the_replica_is_gone(state: State) -> None:
    given = replica("b-1", state, 8, in_flight=1, stops=1, in_state_s=1)
    assert [a for a in plan(fleet([model(waiting=1), model("b", 8)], [given])) if isinstance(a, Start)] == []


def test_an_idle_replica_makes_room_at_once() -> None:
    assert plan(fleet([model(waiting=1), model("b", 8)], [replica("b-1", memory_bytes=8)])) == [for_a("b-1")]


def test_a_start_that_nobody_waits_for_makes_room() -> None:
    given = replica("b-1", State.STARTING, 8)
    expected = [Stop(ReplicaId("b-1"), False, "its memory is needed for a")]
    assert plan(fleet([model(waiting=1), model("b", 8)], [given])) == expected


def test_a_start_that_somebody_waits_for_makes_none() -> None:
    given = replica("b-1", State.STARTING, 8)
    assert plan(fleet([model(waiting=1, waited_s=99), model("b", 8, waiting=1)], [given])) == []


def test_the_longest_unused_goes_first() -> None:
    others = [model(name, 3) for name in "bcd"]
    given = [
        replica("b-1", memory_bytes=3, unused_s=5),
        replica("c-2", memory_bytes=3, unused_s=50),
        replica("d-3", memory_bytes=3),
    ]
    assert plan(fleet([model(waiting=1), *others], given)) == [for_a("c-2")]


def test_no_more_go_than_needed_so_the_small_embedding_model_stays() -> None:
    others = [model("embeddings", 1), model("text", 8)]
    given = [replica("embeddings-1", memory_bytes=1, unused_s=50), replica("text-2", memory_bytes=8)]
    assert plan(fleet([model(memory_bytes=8, waiting=1), *others], given)) == [for_a("text-2")]


def test_of_two_that_need_not_both_go_the_one_used_last_stays() -> None:
    others = [model("b", 2), model("c", 2), model("d", 5)]
    given = [
        replica("b-1", memory_bytes=2, unused_s=50),
        replica("c-2", memory_bytes=2, unused_s=40),
        replica("d-3", memory_bytes=5, unused_s=30),
    ]
    assert plan(fleet([model(memory_bytes=8, waiting=1), *others], given)) == [for_a("b-1"), for_a("d-3")]


def test_an_idle_one_goes_rather_than_a_busy_one() -> None:
    others = [model("b", 2), model("c", 2), model("d", 5)]
    given = [
        replica("b-1", memory_bytes=2, unused_s=5),
        replica("c-2", memory_bytes=2, unused_s=40, in_flight=1),
        replica("d-3", memory_bytes=5, unused_s=30, in_flight=1),
    ]
    asked = model(memory_bytes=8, waiting=1, waited_s=9)
    assert plan(fleet([asked, *others], given)) == [for_a("b-1"), for_a("d-3")]


@pytest.mark.parametrize(
    ("waited_s", "given", "expected"),
    [
        (4.9, replica("b-1", memory_bytes=8, in_flight=1), []),
        (5.0, replica("b-1", memory_bytes=8, in_flight=1), [for_a("b-1")]),
        (5.0, replica("b-1", memory_bytes=8, in_flight=None), [for_a("b-1")]),
        (4.9, replica("b-1", memory_bytes=8, in_flight=None), []),
        (99.0, replica("b-1", memory_bytes=8, in_flight=1, in_state_s=4.9), []),
        (99.0, replica("b-1", memory_bytes=8, in_flight=1, in_state_s=62, load_s=21), []),
        (99.0, replica("b-1", memory_bytes=8, in_flight=1, in_state_s=63, load_s=21), [for_a("b-1")]),
    ],
    ids=[
        "patience",
        "patience is over",
        "unknown load is busy",
        "unknown load is not idle",
        "ready for a moment",
        "its turn is three times as long as its start",
        "its turn is over",
    ],
)
def test_a_busy_replica_goes_after_patience_and_its_turn(
    waited_s: float, given: Replica, expected: list[Action]
) -> None:
    assert plan(fleet([model(waiting=1, waited_s=waited_s), model("b", 8)], [given])) == expected


def test_what_is_kept_never_makes_room() -> None:
    for kept in (model("b", 8, min=1), model("b", 8, wish=Wish.LOADED)):
        [refusal] = plan(fleet([model(waiting=1, waited_s=99), kept], [replica("b-1", memory_bytes=8)]))
        assert not isinstance(refusal, Drain | Stop)


def test_of_replicas_beyond_the_floor_only_these_make_room() -> None:
    given = [replica("b-1", memory_bytes=4, unused_s=9), replica("b-2", memory_bytes=4)]
    asked = model(memory_bytes=3, waiting=1)
    assert plan(fleet([asked, model("b", 4, min=1, max=2)], given)) == [for_a("b-1")]


def test_what_costs_nothing_is_not_ended_for_room() -> None:
    given = [replica("far-1", memory_bytes=0, unused_s=99), replica("b-2", memory_bytes=8)]
    others = [model("far", 0), model("b", 8)]
    assert plan(fleet([model(waiting=1), *others], given)) == [for_a("b-2")]


def test_what_comes_free_already_is_waited_for() -> None:
    given = [replica("b-1", State.DRAINING, 5, in_flight=1), replica("c-2", memory_bytes=5)]
    assert plan(fleet([model(memory_bytes=5, waiting=1), model("b", 5), model("c", 5)], given)) == []


def test_what_comes_free_belongs_to_who_waits_longest() -> None:
    given = [replica("b-1", State.DRAINING, 8, in_flight=1)]
    asked = [model(memory_bytes=10, waiting=1, waited_s=9), model("c", 2, waiting=1)]
    assert plan(fleet([*asked, model("b", 8)], given)) == []


def test_memory_that_nobody_before_it_needs_is_used() -> None:
    given = [replica("b-1", State.DRAINING, 6, in_flight=1)]
    asked = [model(memory_bytes=6, waiting=1, waited_s=9), model("c", 4, waiting=1)]
    assert plan(fleet([*asked, model("b", 6)], given)) == [start("c-7")]


def test_nobody_after_a_large_model_makes_room_while_it_waits_for_turns() -> None:
    others = [model("b", 5), model("c", 5), model("d", 5, waiting=1, waited_s=6)]
    given = [replica("b-1", memory_bytes=5), replica("c-2", memory_bytes=5, in_flight=1, in_state_s=1)]
    large = model(memory_bytes=10, waiting=1, waited_s=9)
    assert plan(fleet([large, *others], given)) == []
    eager = model(memory_bytes=10, waiting=1, waited_s=4)
    others[2] = model("d", 5, waiting=1, waited_s=3)
    assert plan(fleet([eager, *others], given)) == [Drain(ReplicaId("b-1"), "its memory is needed for d")]


def test_nobody_is_held_up_for_a_start_that_has_no_process_yet() -> None:
    others = [model("b", 5), model("c", 5, waiting=1), model("d", 5, waiting=1, waited_s=6)]
    given = [replica("b-1", memory_bytes=5), replica("c-2", State.STARTING, 5, is_spawned=False)]
    large = model(memory_bytes=10, waiting=1, waited_s=9)
    assert plan(fleet([large, *others], given)) == [Drain(ReplicaId("b-1"), "its memory is needed for d")]


def test_a_model_of_which_nobody_knows_what_it_takes_goes_on_and_starts_no_second() -> None:
    lost = model(memory_bytes=Unknown("the hub is away"), max=2, waiting=9)
    assert plan(fleet([lost], [replica(in_flight=4)])) == []


def test_a_blind_runtime_starts_nothing_and_others_do() -> None:
    asked = [model(waiting=1), model("b", 0, waiting=1, runtime="remote")]
    assert plan(fleet(asked, blind=frozenset({"process"}))) == [start("b-7", 0)]


def test_a_model_waits_out_its_back_off() -> None:
    failed = Failures(2, NOW - 1.9, "it broke\nand more")
    assert plan(fleet([model(waiting=1, failures=failed)])) == []
    failed = Failures(2, NOW - 2, "it broke\nand more")
    assert plan(fleet([model(waiting=1, failures=failed)])) == [start("a-7", why=f"{WAITED}, again after: it broke")]


def test_each_victim_is_told_once_also_where_two_models_want_room() -> None:
    others = [model("b", 4), model("c", 4)]
    given = [replica("b-1", unused_s=9), replica("c-2")]
    asked = [model(memory_bytes=4, waiting=1, waited_s=2), model("d", 4, waiting=1, waited_s=1)]
    expected = [
        Drain(ReplicaId("b-1"), "its memory is needed for a"),
        Drain(ReplicaId("c-2"), "its memory is needed for d"),
    ]
    assert plan(fleet([*asked, *others], given, memory_bytes=8)) == expected


def test_who_waits_longest_goes_first_and_what_is_to_be_kept_before_all() -> None:
    asked = [model("a", 6, min=1), model("b", 6, waiting=1, waited_s=1), model("c", 6, waiting=1, waited_s=2)]
    assert plan(fleet(asked[1:])) == [start("c-7", 6)]
    kept, *refusals = plan(fleet(asked))
    assert kept == start("a-7", 6, "kept loaded (scaling.min)")
    assert refusals == []


def test_what_was_emptied_for_one_is_not_given_to_the_next() -> None:
    asked = [model(memory_bytes=8, waiting=1, waited_s=2), model("c", 4, waiting=1, waited_s=1)]
    given = [replica("b-1", memory_bytes=8)]
    assert plan(fleet([*asked, model("b", 8)], given)) == [for_a("b-1")]
    given = [replica("b-1", State.DRAINING, 8, in_flight=1)]
    assert plan(fleet([*asked, model("b", 8)], given)) == []


def test_of_several_replicas_of_one_model_the_floor_stays() -> None:
    given = [replica("b-1", memory_bytes=3, unused_s=9), replica("b-2", memory_bytes=3), replica("c-3", memory_bytes=3)]
    others = [model("b", 3, min=1, max=2), model("c", 3)]
    assert plan(fleet([model(memory_bytes=6, waiting=1), *others], given, memory_bytes=9)) == [
        for_a("b-1"),
        for_a("c-3"),
    ]


def test_those_that_leave_make_no_room_twice() -> None:
    given = [
        replica("b-1", State.DRAINING, 4, in_flight=1, unused_s=9),
        replica("c-2", memory_bytes=4),
    ]
    others = [model("b", 4), model("c", 4)]
    assert plan(fleet([model(memory_bytes=8, waiting=1), *others], given, memory_bytes=8)) == [for_a("c-2")]


def test_a_model_gives_up_nothing_for_itself() -> None:
    old = replica("a-1", memory_bytes=8, args=("old",))
    assert plan(fleet([model(memory_bytes=8, waiting=1)], [old])) == [
        Drain(ReplicaId("a-1"), "the model's configuration has changed")
    ]


def test_a_draining_replica_serves_nobody_so_another_one_starts() -> None:
    idle = replica("a-1", memory_bytes=4, unused_s=999, in_state_s=2000)
    assert plan(fleet([model(memory_bytes=4, wish=Wish.LOADED)], [replica("a-1", State.DRAINING, 4, in_flight=1)])) == [
        start("a-7", why="loaded by hand")
    ]
    assert plan(fleet([model(memory_bytes=4)], [idle])) == [Drain(ReplicaId("a-1"), "no request for 16m39s")]


def test_a_size_that_is_being_looked_up_is_waited_for() -> None:
    coming = model(memory_bytes=Unknown("it is being looked up", is_coming=True), waiting=1)
    assert plan(fleet([coming])) == []


def test_less_memory_than_is_planned_ends_who_is_missed_least() -> None:
    known = [model("a"), model("b", min=1), model("c"), model("d")]
    given = [
        replica("a-1", in_flight=1),
        replica("b-2", unused_s=99),
        replica("c-3", unused_s=9),
        replica("d-4", State.STARTING, unused_s=5),
    ]
    less = "models may take 12 B now"
    assert plan(fleet(known, given, memory_bytes=12)) == [Drain(ReplicaId("c-3"), less)]
    less = "models may take 8 B now"
    expected = [Drain(ReplicaId("c-3"), less), Stop(ReplicaId("d-4"), False, less)]
    assert plan(fleet(known, given, memory_bytes=8)) == expected
    less = "models may take 4 B now"
    assert plan(fleet(known, given, memory_bytes=4)) == [
        Drain(ReplicaId("c-3"), less),
        Stop(ReplicaId("d-4"), False, less),
        Drain(ReplicaId("a-1"), less),
    ]


def test_what_leaves_already_is_waited_for_where_there_is_less_memory() -> None:
    given = [replica("a-1", State.DRAINING, in_flight=1), replica("b-2")]
    assert plan(fleet([model("a"), model("b")], given, memory_bytes=4)) == []


def test_a_fixed_port_is_free_before_it_is_used_again() -> None:
    asked = model(waiting=9, max=3, target=1)
    fixed = replace(asked, spec=replace(asked.spec, port=8000))
    for given in (replica(memory_bytes=1), replica(state=State.STOPPING, memory_bytes=1, stops=1, in_state_s=1)):
        own = replace(given, revision=fixed.spec.revision)
        assert plan(fleet([fixed], [own])) == []
    assert [action.replica for action in plan(fleet([fixed])) if isinstance(action, Start)] == ["a-7"]

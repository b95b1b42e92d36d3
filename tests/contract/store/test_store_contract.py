"""What every store promises, the fake too."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelgrid.spec import (
    Deed,
    Event,
    Failures,
    Former,
    ModelName,
    Quota,
    Replica,
    ReplicaId,
    Scope,
    Share,
    State,
    Wish,
)
from modelgrid.spec.reason import Cause, Reason
from modelgrid.store import (
    DEEDS_KEPT_S,
    EVENTS_KEPT,
    RUNS_KEPT,
    Grant,
    GroupInUse,
    KeyIsOver,
    KeyNameRefused,
    KeyRecord,
    MemoryStore,
    Run,
    Saved,
    Store,
    UnknownGroup,
    UnknownKey,
    open_store,
)

QWEN = ModelName("Qwen/Qwen2.5-7B")
MINE = ModelName("mine")


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    kinds: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: open_store(tmp_path / "modelgrid.db"),
        "memory": MemoryStore,
    }
    opened = kinds[request.param]()
    yield opened
    opened.close()


def replica(name: str = "mine-1", state: State = State.READY) -> Replica:
    return Replica(
        id=ReplicaId(name),
        model=MINE,
        revision="0123456789ab",
        state=state,
        shares=(Share("gpu0", 3 * 2**40 + 1), Share("cpu", 1)),
        since=1_700_000_000.25,
        created=1_700_000_000.125,
        why="naïve “quotes”, \n lines and 🙂",
        ready_at=None,
        last_used=0.0,
        in_flight=None,
        stops=2,
    )


def test_an_empty_store_has_nothing_and_starts_at_one(store: Store) -> None:
    assert store.saved() == Saved(replicas=(), failures={}, next=1, table=0)
    assert store.wishes() == {}
    assert store.keys() == []
    assert store.events(None, 10) == []


def test_what_was_saved_comes_back_whole(store: Store) -> None:
    saved = Saved(
        replicas=(replica("z"), replica("a", State.FAILED)),
        failures={QWEN: Failures(count=3, last=12.5, why="exited with code 1", hopeless=True), MINE: Failures()},
        next=17,
        table=2**40,
    )
    store.save(saved)
    assert store.saved() == saved


def test_saving_replaces_what_was_saved(store: Store) -> None:
    store.save(Saved((replica("a"), replica("b")), {QWEN: Failures(1)}, next=3, table=5))
    after = Saved((replica("b"),), {}, next=4, table=6)
    store.save(after)
    assert store.saved() == after


def test_a_dict_that_was_saved_is_not_shared_with_the_store(store: Store) -> None:
    failures = {MINE: Failures(1)}
    store.save(Saved(failures=failures))
    failures[MINE] = Failures(2)
    store.saved().failures.clear()
    assert store.saved().failures == {MINE: Failures(1)}


def test_a_wish_is_kept_replaced_and_forgotten(store: Store) -> None:
    store.set_wish(QWEN, Wish.LOADED)
    store.set_wish(MINE, Wish.LOADED)
    store.set_wish(MINE, Wish.UNLOADED)
    assert store.wishes() == {QWEN: Wish.LOADED, MINE: Wish.UNLOADED}
    store.set_wish(QWEN, None)
    store.set_wish(QWEN, None)
    assert store.wishes() == {MINE: Wish.UNLOADED}


def listed(store: Store) -> list[KeyRecord]:
    return store.keys()


def test_a_key_is_a_random_token_of_which_only_the_hash_is_kept(store: Store) -> None:
    record, text = store.create_key("laptop", 100.0)
    assert re.fullmatch(r"mg-[A-Za-z0-9_-]{43}", text)
    assert record.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (record.name, record.shown, record.created, record.revoked) == ("laptop", text[:7], 100.0, None)
    assert store.keys() == [record]
    assert text not in repr(store.keys())
    assert record.sha256 not in repr(record)


def test_keys_differ_and_are_listed_oldest_first(store: Store) -> None:
    made = [store.create_key(name, at) for at, name in enumerate(["c", "a", "b"])]
    assert [key.name for key in listed(store)] == ["c", "a", "b"]
    assert len({text for _, text in made} | {record.id for record, _ in made}) == 6


def test_a_name_in_use_is_refused_and_the_next_step_is_told(store: Store) -> None:
    record, _ = store.create_key("laptop", 1.0)
    with pytest.raises(KeyNameRefused, match=r"cannot create a key named 'laptop'.*modelgrid key revoke laptop"):
        store.create_key("laptop", 2.0)
    assert store.keys() == [record]


@pytest.mark.parametrize("name", ["", "  ", " a", "a ", "a\nb", "\x1b[31m", "x" * 101])
def test_a_name_that_cannot_be_shown_is_refused(store: Store, name: str) -> None:
    with pytest.raises(KeyNameRefused, match="printable"):
        store.create_key(name, 1.0)
    assert store.keys() == []


def test_a_revoked_name_is_free_again(store: Store) -> None:
    first, _ = store.create_key("laptop", 1.0)
    store.revoke_key("laptop", 2.0)
    second, _ = store.create_key("laptop", 3.0)
    assert [(key.id, key.revoked) for key in listed(store)] == [(first.id, 2.0), (second.id, None)]


def test_a_key_is_revoked_by_name_or_by_id(store: Store) -> None:
    first, _ = store.create_key("a", 1.0)
    second, _ = store.create_key("b", 1.0)
    assert store.revoke_key("a", 5.0).id == first.id
    assert store.revoke_key(second.id, 6.0).id == second.id
    assert [key.revoked for key in listed(store)] == [5.0, 6.0]


def test_revoking_a_name_spares_the_revoked_keys_that_had_it(store: Store) -> None:
    store.create_key("a", 1.0)
    store.revoke_key("a", 2.0)
    second, _ = store.create_key("a", 3.0)
    assert store.revoke_key("a", 4.0).id == second.id
    assert [key.revoked for key in listed(store)] == [2.0, 4.0]


def test_revoking_twice_changes_nothing(store: Store) -> None:
    record, _ = store.create_key("a", 1.0)
    assert store.revoke_key("a", 2.0) == store.revoke_key("a", 9.0) == store.revoke_key(record.id, 9.0)
    assert store.keys()[0].revoked == 2.0


def test_revoking_an_unknown_key_says_so(store: Store) -> None:
    with pytest.raises(UnknownKey, match="cannot revoke key 'nobody': there is no such key"):
        store.revoke_key("nobody", 1.0)


def event(number: int, model: str = "mine") -> Event:
    return Event(at=float(number), model=model, replica=None if number % 2 else "r-1", what="start", why=f"n {number}")


def test_events_come_back_in_order_the_newest_of_one_model(store: Store) -> None:
    store.record([event(1), event(2, "other")])
    store.record([])
    store.record([event(3), event(4)])
    assert store.events(None, 10) == [event(1), event(2, "other"), event(3), event(4)]
    assert store.events("mine", 2) == [event(3), event(4)]
    assert store.events("other", 10) == [event(2, "other")]
    assert store.events("nobody", 10) == []


def test_the_facts_of_an_event_come_back_whole(store: Store) -> None:
    started = Reason(cause=Cause.REQUEST, waiting=3, waited_s=0.25, devices=("gpu0", "gpu1"), free_bytes=2**40)
    ready = Reason(phases={"load": 30.5, "first_request": 8.0}, log=("one", "two"), in_flight=0)
    kept = [
        replace(event(1), reason=started),
        event(2),
        replace(event(3), reason=ready),
        replace(event(4), reason=Reason()),
    ]
    store.record(kept)
    assert store.events(None, 9) == kept


@pytest.mark.parametrize("limit", [0, -1])
def test_no_events_is_no_events(store: Store, limit: int) -> None:
    store.record([event(1)])
    assert store.events(None, limit) == []


def test_events_are_bounded(store: Store) -> None:
    store.record(event(number) for number in range(EVENTS_KEPT + 7))
    store.record([event(99_999)])
    kept = store.events(None, 2 * EVENTS_KEPT)
    assert len(kept) == EVENTS_KEPT
    assert (kept[0], kept[-1]) == (event(8), event(99_999))


def run(number: int, **facts: Any) -> Run:
    return Run(ReplicaId(f"mine-{number}"), MINE, "r1", "cuda", float(number), **facts)


def test_what_replicas_took_comes_back_whole_and_in_order(store: Store) -> None:
    late, early = run(2, load_s=1.5, memory_bytes=2**40 + 1, main_bytes=3), run(1)
    store.remember([late, early])
    assert store.runs() == [early, late]


def test_more_of_the_same_replica_replaces_what_was_known(store: Store) -> None:
    store.remember([run(1), run(2)])
    store.remember([run(1, load_s=2.0)])
    store.remember([])
    assert store.runs() == [run(1, load_s=2.0), run(2)]


def test_runs_are_bounded(store: Store) -> None:
    store.remember([run(number) for number in range(RUNS_KEPT)])
    store.remember([run(RUNS_KEPT), run(RUNS_KEPT + 1)])
    kept = store.runs()
    assert (len(kept), kept[0], kept[-1]) == (RUNS_KEPT, run(2), run(RUNS_KEPT + 1))


def test_the_secret_is_made_once(store: Store) -> None:
    assert len(store.secret()) == 32
    assert store.secret() == store.secret()


def test_the_version_tells_of_wishes_and_keys_but_not_of_the_controllers_own_notes(store: Store) -> None:
    seen = [store.version()]

    def moved() -> bool:
        seen.append(store.version())
        return seen[-1] != seen[-2]

    assert not moved()
    store.set_wish(MINE, Wish.LOADED)
    assert moved()
    store.create_key("a", 1.0)
    assert moved()
    store.revoke_key("a", 1.0)
    assert moved()
    store.save(Saved(next=2))
    store.record([event(1)])
    store.events(None, 1)
    assert not moved()
    assert len(set(seen)) == 4  # never an earlier number again


def test_threads_may_share_a_store(store: Store) -> None:
    def work(number: int) -> None:
        store.create_key(f"key {number}", 1.0)
        store.record([event(number)])
        store.set_wish(ModelName(f"model {number}"), Wish.LOADED)
        store.save(Saved(next=number + 1))
        store.saved(), store.keys(), store.events(None, 5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert len(store.keys()) == len(store.wishes()) == len(store.events(None, 100)) == 40


def test_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()


def test_a_key_keeps_what_it_may_use_also_when_it_is_revoked(store: Store) -> None:
    quota = Quota(requests_per_minute=60, concurrency=4)
    record, _ = store.create_key("team", 1.0, Grant(quota=quota, models=("naïve", "a,b")))
    assert (record.quota, record.models) == (quota, ("naïve", "a,b"))
    plain, _ = store.create_key("all", 2.0)
    assert (plain.quota, plain.models) == (None, None)
    assert store.keys() == [record, plain]
    assert store.revoke_key("team", 3.0).quota == quota


def test_what_a_key_is_for_comes_back_whole(store: Store) -> None:
    store.set_group("team-a", Quota(concurrency=2))
    grant = Grant(
        quota=Quota(tokens_per_minute=9),
        models=("a",),
        operations=("chat", "embeddings"),
        scopes=(Scope.CALLER, Scope.METRICS),
        group="team-a",
        expires=50.5,
    )
    record, _ = store.create_key("all", 1.0, grant)
    plain, _ = store.create_key("plain", 1.0)
    assert listed(store) == [record, plain]
    assert (record.operations, record.scopes, record.group, record.expires) == (
        ("chat", "embeddings"),
        (Scope.CALLER, Scope.METRICS),
        "team-a",
        50.5,
    )
    assert (plain.operations, plain.scopes, plain.group, plain.expires) == (None, (Scope.CALLER,), None, None)


def test_a_rotated_key_is_the_same_key_with_another_text(store: Store) -> None:
    before, old = store.create_key("ci", 1.0, Grant(models=("a",), expires=100.0))
    version = store.version()
    after, text = store.rotate_key("ci", 10.0, grace_s=5.0)
    assert text != old
    assert after == replace(
        before,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        shown=text[:7],
        former=(Former(sha256=before.sha256, until=15.0),),
    )
    assert listed(store) == [after]
    assert store.version() != version


def test_each_text_keeps_its_own_grace_and_without_one_all_end(store: Store) -> None:
    store.create_key("ci", 1.0)
    store.rotate_key("ci", 10.0, grace_s=100.0)
    store.rotate_key("ci", 20.0, grace_s=5.0)
    third, _ = store.rotate_key("ci", 30.0, grace_s=5.0)
    assert [one.until for one in third.former] == [110.0, 35.0]  # what ended at 25 is forgotten
    last, _ = store.rotate_key("ci", 31.0)
    assert last.former == ()


def test_what_is_over_is_not_rotated_unless_it_may_live_again(store: Store) -> None:
    store.create_key("gone", 1.0)
    store.revoke_key("gone", 2.0)
    with pytest.raises(KeyIsOver, match=r"cannot rotate key 'gone': it was revoked"):
        store.rotate_key("gone", 3.0)
    store.create_key("late", 1.0, Grant(expires=5.0))
    with pytest.raises(KeyIsOver, match=r"cannot rotate key 'late': it has expired .*--expires"):
        store.rotate_key("late", 5.0)
    assert store.rotate_key("late", 5.0, expires=9.0)[0].expires == 9.0
    with pytest.raises(UnknownKey, match="cannot rotate key 'none'"):
        store.rotate_key("none", 3.0)


def test_a_group_is_made_changed_and_removed_once_no_key_is_of_it(store: Store) -> None:
    with pytest.raises(UnknownGroup, match="cannot put a key into group 'team'"):
        store.create_key("a", 1.0, Grant(group="team"))
    store.set_group("team", Quota(concurrency=1))
    store.set_group("team", Quota(requests_per_minute=2))
    store.set_group("other", Quota())
    assert store.groups() == {"team": Quota(requests_per_minute=2), "other": Quota()}
    store.create_key("a", 1.0, Grant(group="team"))
    with pytest.raises(GroupInUse, match=r"cannot remove group 'team': keys are of it: a "):
        store.set_group("team", None)
    store.revoke_key("a", 2.0)
    store.set_group("team", None)
    assert store.groups() == {"other": Quota()}
    with pytest.raises(UnknownGroup, match="cannot remove group 'team'"):
        store.set_group("team", None)
    with pytest.raises(KeyNameRefused, match="printable"):
        store.set_group("a\nb", Quota())


HOSTILE = "x'); DROP TABLE keys; --"


def test_names_are_values_and_never_part_of_a_statement(store: Store) -> None:
    store.set_group(HOSTILE, Quota(concurrency=1))
    record, _ = store.create_key(HOSTILE, 1.0, Grant(models=(HOSTILE,), group=HOSTILE))
    store.note(Deed(1.0, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    assert listed(store) == [record]
    assert store.rotate_key(HOSTILE, 2.0)[0].id == record.id
    assert store.revoke_key(HOSTILE, 3.0).id == record.id
    store.set_group(HOSTILE, None)
    assert [key.name for key in listed(store)] == [HOSTILE]
    assert store.audit(9) == [Deed(1.0, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)]


def deed(at: float, target: str = "a") -> Deed:
    return Deed(at, "owner", "", "key.create", target, "ok")


def test_deeds_are_told_oldest_first_the_newest_of_a_time(store: Store) -> None:
    for at in (1.0, 2.0, 3.0):
        store.note(deed(at))
    assert store.audit(2) == [deed(2.0), deed(3.0)]
    assert store.audit(9, since=3.0) == [deed(3.0)]
    assert store.audit(0) == []


def test_deeds_are_forgotten_when_they_are_old(store: Store) -> None:
    store.note(deed(1.0))
    store.note(deed(2.0))
    store.note(deed(2.0 + DEEDS_KEPT_S, "new"))
    assert [kept.at for kept in store.audit(9)] == [2.0, 2.0 + DEEDS_KEPT_S]


def test_a_deed_is_no_news_for_the_controller(store: Store) -> None:
    version = store.version()
    store.note(deed(1.0))
    assert store.version() == version

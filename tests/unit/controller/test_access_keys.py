"""From the store's keys and groups to those of a routing table."""

from __future__ import annotations

from modelgrid.controller.keys import access_keys, key_groups
from modelgrid.controller.slots import recovered
from modelgrid.controller.table import same
from modelgrid.spec import AccessKey, KeyGroup, Quota, RoutingTable, Scope
from modelgrid.store import Grant, MemoryStore
from unit.controller.stage import Play, Stage, until


def test_a_table_tells_all_that_a_worker_has_to_hold() -> None:
    store = MemoryStore()
    store.set_group("team", Quota(concurrency=2))
    grant = Grant(
        quota=Quota(requests_per_minute=1),
        models=("a",),
        operations=("chat",),
        scopes=(Scope.ADMIN,),
        group="team",
        expires=50.0,
    )
    store.create_key("ops", 1.0, grant)
    record, _ = store.rotate_key("ops", 2.0, grace_s=3.0)
    (key,) = access_keys(store.keys(), must_have_one=False)
    assert key == AccessKey(
        id=record.id,
        name="ops",
        sha256=record.sha256,
        quota=Quota(requests_per_minute=1),
        models=("a",),
        operations=("chat",),
        scopes=(Scope.ADMIN,),
        group="team",
        expires=50.0,
        former=record.former,
    )
    assert len(key.former) == 1


def test_a_revoked_key_is_not_told_and_an_expired_one_keeps_the_door_closed() -> None:
    store = MemoryStore()
    store.create_key("late", 1.0, Grant(expires=2.0))
    store.create_key("gone", 1.0)
    store.revoke_key("gone", 2.0)
    assert [key.name for key in access_keys(store.keys(), must_have_one=False)] == ["late"]
    store.revoke_key("late", 3.0)
    assert access_keys(store.keys(), must_have_one=False) == ()
    (nobodys,) = access_keys(store.keys(), must_have_one=True)
    assert nobodys.sha256 == "none"


def test_only_groups_that_limit_somebody_are_told() -> None:
    keys = (AccessKey(id="1", name="a", sha256="0", group="team"), AccessKey(id="2", name="b", sha256="1"))
    groups = {"team": Quota(concurrency=1), "empty": Quota()}
    assert key_groups(groups, keys) == (KeyGroup(name="team", quota=Quota(concurrency=1)),)


def test_a_group_keeps_its_slot_over_a_restart_of_the_controller() -> None:
    table = RoutingTable(number=1, groups=(KeyGroup(name="team", slot=7),), last_slot=7)
    assert recovered(table).of("group", "team") == 7


def test_another_limit_of_a_group_is_news() -> None:
    groups = (KeyGroup(name="team", slot=7, quota=Quota(concurrency=1)),)
    table = RoutingTable(number=1, groups=groups)
    assert same(table, (), (), groups)
    assert not same(table, (), (), (KeyGroup(name="team", slot=7, quota=Quota(concurrency=2)),))


def test_workers_are_told_of_a_group_with_a_slot_of_its_own(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.begin()
        worker = await stage.worker()
        stage.store.set_group("team", Quota(concurrency=2))
        stage.store.create_key("ann", 1.0, Grant(group="team"))
        await until(lambda: worker.tables and worker.table.groups)
        (group,), (key,) = worker.table.groups, worker.table.keys
        assert (group.name, group.quota, key.group) == ("team", Quota(concurrency=2), "team")
        assert 0 < group.slot != key.slot > 0
        stage.store.set_group("team", Quota(concurrency=3))
        await until(lambda: worker.table.groups[0].quota == Quota(concurrency=3))
        assert worker.table.groups[0].slot == group.slot

    play(scene)

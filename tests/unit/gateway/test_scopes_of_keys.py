"""What a key is for, how long, and with whom it shares its limits: held by the worker alone."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from modelgrid.spec import AccessKey, Former, KeyGroup, Quota, Scope
from modelgrid.spec.operations import CHAT, EMBEDDINGS
from unit.gateway.world import PATIENCE_S, Answered, Asked, Play, World, route, until

BODY = b'{"model":"m"}'
ALL = (Scope.CALLER, Scope.METRICS, Scope.ADMIN)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def key(name: str = "ann", **more: Any) -> AccessKey:
    return AccessKey(id=f"id-{name}", name=name, sha256=sha256(name), **more)


def code_of(answered: Answered) -> tuple[int, str]:
    error = json.loads(answered.body)["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    return answered.status, error["code"]


async def ask(world: World, path: str, name: str = "ann", method: str = "POST") -> Answered:
    caller = await world.call()
    headers = f"Authorization: Bearer {name}\r\n"
    if method == "POST":
        caller.post(path, BODY, headers)
    else:
        caller.get(path, headers, method)
    return await caller.answer()


async def echo(asked: Asked) -> None:
    await asked.sized(b"{}")


@pytest.mark.parametrize(
    ("scopes", "path", "needs"),
    [
        ((Scope.METRICS,), "/v1/models", "caller"),
        ((Scope.ADMIN,), "/v1/models", "caller"),
        ((Scope.METRICS, Scope.ADMIN), "/v1/models/m", "caller"),
        ((Scope.CALLER,), "/metrics", "admin or metrics"),
        ((Scope.CALLER,), "/control/v1/status", "admin"),
        ((Scope.CALLER, Scope.METRICS), "/control/v1/status", "admin"),
    ],
)
def test_a_key_of_another_scope_is_told_which_one_is_missing(
    play: Play, scopes: tuple[Scope, ...], path: str, needs: str
) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(), keys=(key(scopes=scopes),))
        refused = await ask(world, path, method="GET")
        assert code_of(refused) == (403, "missing_scope")
        assert (
            f"needs a key of the scope {needs}, and the key 'ann' has" in json.loads(refused.body)["error"]["message"]
        )

    play(scene)


def test_who_administers_only_reaches_no_engine(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        await world.controller.publish(route(engine.target("m-1")), keys=(key(scopes=(Scope.ADMIN, Scope.METRICS)),))
        for path in ("/v1/chat/completions", "/v1/chat/m", "/v1/messages", "/v1/embeddings"):
            assert (await ask(world, path)).status == 403
        assert engine.asked == []
        await world.controller.publish(route(engine.target("m-1")), keys=(key(scopes=ALL),))
        assert (await ask(world, "/v1/chat/completions")).status == 200

    play(scene)


def test_a_key_for_some_operations_may_use_no_other_and_no_path_of_a_models_own(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        target = engine.target("m-1")
        own = route(target, operations=(CHAT, EMBEDDINGS), endpoint="/v1/mine/make")
        await world.controller.publish(own, keys=(key(operations=(EMBEDDINGS,)), key("bob")))
        assert (await ask(world, "/v1/embeddings")).status == 200
        assert (await ask(world, "/v1/models", method="GET")).status == 200
        for path in ("/v1/chat/completions", "/v1/mine/make"):
            refused = await ask(world, path)
            assert code_of(refused) == (403, "operation_not_allowed")
            assert "the key 'ann' is for embeddings only" in json.loads(refused.body)["error"]["message"]
            assert (await ask(world, path, "bob")).status == 200
        assert len(engine.asked) == 3

    play(scene)


def test_a_key_that_expires_is_refused_by_a_worker_that_hears_of_nobody_also_where_its_head_is_known(
    play: Play,
) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        ends = time.time() + 0.4
        await world.controller.publish(route(engine.target("m-1")), keys=(key(expires=ends),))
        caller = await world.call()

        async def status() -> int:
            caller.post("/v1/chat/completions", BODY, "Authorization: Bearer ann\r\n")
            return (await caller.answer()).status

        assert await status() == 200
        assert await status() == 200  # by the head that was seen before
        while await status() == 200:
            assert time.time() < ends + PATIENCE_S
        assert time.time() >= ends
        refused = await ask(world, "/v1/chat/completions")
        assert code_of(refused) == (401, "key_expired")
        assert "the key 'ann' has expired" in json.loads(refused.body)["error"]["message"]

    play(scene)


def test_the_last_key_that_expires_opens_nothing_to_anybody(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route(), keys=(key(expires=time.time() - 1.0, scopes=ALL),))
        for path in ("/v1/models", "/metrics", "/control/v1/status"):
            assert (await world.get(path)).status == 401
            assert code_of(await ask(world, path, method="GET")) == (401, "key_expired")

    play(scene)


def test_after_a_rotation_both_secrets_open_until_the_former_ones_grace_is_over(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        target = route(engine.target("m-1"))
        rotated = AccessKey(
            id="id-ann",
            name="ann",
            sha256=sha256("new"),
            former=(Former(sha256=sha256("ann"), until=time.time() + 0.4),),
        )
        await world.controller.publish(target, keys=(rotated,))
        assert (await ask(world, "/v1/chat/completions", "new")).status == 200
        assert (await ask(world, "/v1/chat/completions", "ann")).status == 200
        await until(lambda: time.time() > rotated.former[0].until)
        assert code_of(await ask(world, "/v1/chat/completions", "ann")) == (401, "key_expired")
        assert (await ask(world, "/v1/chat/completions", "new")).status == 200

    play(scene)


def test_a_former_secret_opens_no_longer_than_its_key(play: Play) -> None:
    async def scene(world: World) -> None:
        now = time.time()
        former = (Former(sha256=sha256("old"), until=now + 100),)
        await world.controller.publish(route(), keys=(key(expires=now - 1, former=former),))
        assert code_of(await ask(world, "/v1/models", "old", "GET")) == (401, "key_expired")

    play(scene)


def test_keys_of_a_group_share_its_limit_and_each_keeps_its_own(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(echo)
        group = KeyGroup(name="team", slot=9, quota=Quota(requests_per_minute=4))
        keys = (
            key("ann", slot=1, group="team", quota=Quota(requests_per_minute=1)),
            key("bob", slot=2, group="team"),
            key("eve", slot=3),
        )
        await world.controller.publish(route(engine.target("m-1")), keys=keys, groups=(group,))
        assert (await ask(world, "/v1/chat/completions", "ann")).status == 200
        own = await ask(world, "/v1/chat/completions", "ann")
        assert "the key 'ann' may have 1 requests a minute" in json.loads(own.body)["error"]["message"]
        assert [(await ask(world, "/v1/chat/completions", "bob")).status for _ in range(4)] == [200, 200, 200, 429]
        shared = await ask(world, "/v1/chat/completions", "bob")
        message = json.loads(shared.body)["error"]["message"]
        assert "the group 'team' of the key 'bob' may have 4 requests a minute" in message
        assert (await ask(world, "/v1/chat/completions", "eve")).status == 200

    play(scene)


def test_a_group_counts_what_is_in_flight_of_all_its_keys_and_what_it_refuses_counts_nowhere(play: Play) -> None:
    async def scene(world: World) -> None:
        async def answer(asked: Asked) -> None:
            await until(lambda: len(waiting) > 1)
            await asked.sized(b"{}")

        waiting = [0]
        engine = await world.engine(answer)
        group = KeyGroup(name="team", slot=9, quota=Quota(concurrency=1))
        own = Quota(requests_per_minute=1, concurrency=1)
        keys = tuple(key(name, slot=slot, group="team", quota=own) for slot, name in enumerate(("ann", "bob"), 1))
        await world.controller.publish(route(engine.target("m-1")), keys=keys, groups=(group,))
        first = await world.call()
        first.post("/v1/chat/completions", BODY, "Authorization: Bearer ann\r\n")
        await until(lambda: engine.asked)
        assert code_of(await ask(world, "/v1/chat/completions", "bob")) == (429, "rate_limit_exceeded")
        waiting.append(0)
        assert (await first.answer()).status == 200
        assert (await ask(world, "/v1/chat/completions", "bob")).status == 200

    play(scene)


@pytest.mark.parametrize("query", ["?api_key=mg-secret", "?key=mg-secret&x=1", "?model=m&access_token=mg-secret"])
def test_a_key_in_a_url_opens_nothing_and_is_not_repeated(play: Play, query: str) -> None:
    async def scene(world: World) -> None:
        known = AccessKey(id="1", name="ann", sha256=sha256("mg-secret"), scopes=ALL)
        await world.controller.publish(route(), keys=(known,))
        for path in ("/v1/models", "/metrics", "/control/v1/status"):
            refused = await world.get(path + query)
            assert code_of(refused) == (401, "key_in_url")
            assert b"mg-secret" not in refused.body

    play(scene)

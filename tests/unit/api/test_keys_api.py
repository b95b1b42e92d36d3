"""Keys, groups and the audit log by the control API, asked in memory."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from modelgrid.spec import Deed, Former, Quota, Scope
from modelgrid.store import MemoryStore
from unit.api.asking import Api


@pytest.fixture
def api() -> Api:
    return Api()


def keys(api: Api) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = api.ask("GET", "/keys").json()
    return listed


def deeds(api: Api) -> list[tuple[str, str, str, str, str]]:
    return [(deed.who, deed.name, deed.what, deed.target, deed.outcome) for deed in api.store.audit(100)]


def test_a_key_is_made_for_what_was_said(api: Api) -> None:
    api.store.set_group("team", Quota(concurrency=3))
    ends = time.time() + 100
    asked = {
        "name": "all",
        "tokens_per_minute": 7,
        "models": ["a"],
        "operations": ["chat", "embeddings"],
        "scopes": ["metrics", "caller", "metrics"],
        "group": "team",
        "expires": ends,
    }
    assert api.ask("POST", "/keys", json=asked).status_code == 201
    (record,) = api.store.keys()
    assert (record.quota, record.models, record.operations) == (
        Quota(tokens_per_minute=7),
        ("a",),
        ("chat", "embeddings"),
    )
    assert (record.scopes, record.group, record.expires) == ((Scope.METRICS, Scope.CALLER), "team", ends)
    (shown,) = keys(api)
    assert {name: shown[name] for name in asked} == {**asked, "scopes": ["metrics", "caller"]}
    assert "sha256" not in shown
    assert shown["former_until"] is None


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"name": "a", "sha256": "00"}, 422),
        ({"name": "a", "former": []}, 422),
        ({"name": "a", "scopes": ["root"]}, 422),
        ({"name": "a", "scopes": []}, 422),
        ({"name": "a", "operations": ["chatting"]}, 422),
        ({"name": "a", "expires": 1.0}, 422),
        ({"name": "a", "expires": 1e300}, 422),
        ({"name": "a", "concurrency": 2**63}, 422),
        ({"name": "a", "group": "none"}, 404),
        ({"name": "a\nb"}, 409),
        ({}, 422),
    ],
)
def test_a_key_for_what_there_is_not_is_refused(api: Api, asked: dict[str, Any], status: int) -> None:
    answer = api.ask("POST", "/keys", json=asked)
    assert (answer.status_code, sorted(answer.json()["error"])) == (status, ["code", "message", "type"])
    assert keys(api) == []


def test_numbers_that_are_none_are_refused_and_not_a_defect(api: Api) -> None:
    for text in ('{"name":"a","expires":NaN}', '{"name":"a","expires":Infinity}'):
        answer = api.ask("POST", "/keys", content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 422


def test_a_key_is_rotated_with_a_grace_and_without_a_body_at_once(api: Api) -> None:
    first = api.ask("POST", "/keys", json={"name": "a/b"}).json()
    second = api.ask("POST", "/keys/a%2Fb/rotate", json={"grace_s": 60}).json()
    assert (second["id"], second["name"]) == (first["id"], "a/b")
    assert second["key"] != first["key"]
    (record,) = api.store.keys()
    assert len(record.former) == 1
    assert isinstance(record.former[0], Former)
    assert keys(api)[0]["former_until"] == record.former[0].until
    assert api.ask("POST", f"/keys/{first['id']}/rotate").status_code == 200
    assert keys(api)[0]["former_until"] is None
    assert api.control.wakes == 3


def test_what_can_not_be_rotated_says_why(api: Api) -> None:
    api.ask("POST", "/keys", json={"name": "a"})
    assert api.refusal("POST", "/keys/none/rotate")[:3] == (404, "invalid_request_error", "unknown_key")
    assert api.ask("POST", "/keys/a/rotate", json={"grace_s": -1}).status_code == 422
    assert api.ask("POST", "/keys/a/rotate", json={"grace": 1}).status_code == 422
    api.ask("DELETE", "/keys/a")
    assert api.refusal("POST", "/keys/a/rotate")[:3] == (409, "invalid_request_error", "key_is_over")


def test_groups_are_made_changed_listed_and_removed(api: Api) -> None:
    assert api.ask("PUT", "/groups/team%2Fa", json={"concurrency": 2}).json()["concurrency"] == 2
    assert api.ask("PUT", "/groups/team%2Fa", json={"requests_per_minute": 9}).status_code == 200
    api.ask("POST", "/keys", json={"name": "ann", "group": "team/a"})
    assert api.ask("GET", "/groups").json() == [
        {
            "name": "team/a",
            "requests_per_minute": 9,
            "tokens_per_minute": None,
            "concurrency": None,
            "keys": ["ann"],
        }
    ]
    assert api.refusal("DELETE", "/groups/team%2Fa")[:3] == (409, "invalid_request_error", "group_in_use")
    api.ask("DELETE", "/keys/ann")
    assert api.ask("DELETE", "/groups/team%2Fa").status_code == 204
    assert api.refusal("DELETE", "/groups/team%2Fa")[:3] == (404, "invalid_request_error", "unknown_group")
    assert api.ask("PUT", "/groups/x", json={"limit": 1}).status_code == 422
    assert api.refusal("PUT", "/groups/a%1Bb", json={})[2] == "group_name_refused"


def test_everything_that_changes_something_is_noted_and_nothing_else(api: Api) -> None:
    made = api.ask("POST", "/keys", json={"name": "ops"}).json()
    by = {"x-modelgrid-by": made["id"]}
    api.ask("GET", "/keys", headers=by)
    api.ask("POST", "/models/mine/load", headers=by)
    api.ask("POST", "/models/nothing/unload", headers=by)
    api.ask("POST", "/fit", json={"model": "mine"})
    api.ask("PATCH", "/keys")
    api.ask("POST", "/nowhere")
    api.ask("POST", "/keys", json={"name": "x", "extra": 1}, headers={"x-modelgrid-by": "anyone"})
    api.ask("PUT", "/groups/team", json={}, headers={"x-modelgrid-by": "gone"})
    api.ask("POST", "/keys/ops/rotate")
    api.ask("DELETE", "/keys/none")
    ops = (made["id"], "ops")
    assert deeds(api) == [
        ("owner", "", "key.create", "ops", "ok"),
        (*ops, "model.load", "mine", "ok"),
        (*ops, "model.unload", "nothing", "model_not_found"),
        ("anyone", "", "key.create", "", "invalid_request"),
        ("gone", "", "group.set", "team", "ok"),
        ("owner", "", "key.rotate", "ops", "ok"),
        ("owner", "", "key.revoke", "none", "unknown_key"),
    ]
    told = api.ask("GET", "/audit?limit=2").json()
    assert [deed["target"] for deed in told] == ["ops", "none"]
    assert made["key"] not in json.dumps(api.ask("GET", "/audit").json())


def test_what_is_noted_stays_on_its_line(api: Api) -> None:
    api.ask("DELETE", "/keys/a%0downer%20key.create%1b[2J" + "x" * 300)
    ((_, _, what, target, _),) = deeds(api)
    assert (what, target.isprintable(), target[:12]) == ("key.revoke", True, "a\\rowner key")
    assert len(target) < 250


def test_the_audit_log_goes_back_as_far_as_was_asked(api: Api) -> None:
    now = time.time()
    for age_s in (500.0, 5.0):
        api.store.note(Deed(now - age_s, "owner", "", "key.create", str(age_s), "ok"))
    assert [deed["target"] for deed in api.ask("GET", "/audit?since_s=60").json()] == ["5.0"]
    for wrong in ("limit=0", "limit=100000", "since_s=-1", "since_s=nan"):
        assert api.ask("GET", f"/audit?{wrong}").status_code == 422


def test_a_store_that_is_full_keeps_nobody_from_an_answer(api: Api) -> None:
    class Full(MemoryStore):
        def note(self, deed: Deed) -> None:
            self.broken = "full"
            self._check()

    full = Api(Full())
    assert full.ask("POST", "/keys", json={"name": "a"}).status_code == 201


def test_no_answer_is_to_be_kept(api: Api) -> None:
    for method, path in (("GET", "/status"), ("POST", "/keys"), ("GET", "/nowhere")):
        assert api.ask(method, path, json={"name": "a"}).headers["cache-control"] == "no-store"

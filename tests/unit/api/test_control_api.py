"""The control API, asked in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn
from urllib.parse import quote

import pytest

from modelgrid import __version__
from modelgrid.spec import Event, LogLines, ModelName, Wish
from modelgrid.spec.reason import Cause, Reason
from unit.api.asking import MODEL, OTHERS, REPLICA, SLASHES, STATUS, Api


@pytest.fixture
def api() -> Api:
    return Api()


def test_health_needs_neither_controller_nor_store(api: Api) -> None:
    api.store.broken = "its disk is gone"
    answer = api.ask("GET", "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "version": __version__})


def test_status_is_the_whole_picture(api: Api) -> None:
    answer = api.ask("GET", "/status").json()
    assert answer["memory_planned_bytes"] == 2**30
    assert answer["models"][0]["aliases"] == ["gpt-4o-mini"]
    assert answer["replicas"][0]["phases"] == {"spawn": 0.25}
    assert answer["problem"] is None


@pytest.mark.parametrize("name", ["mine", "gpt-4o-mini"])
def test_why_is_the_model_its_replicas_and_its_events_by_name_or_alias(api: Api, name: str) -> None:
    api.store.record([Event(1.0, "mine", None, "start", "a request waits"), Event(2.0, SLASHES, None, "start", "")])
    answer = api.ask("GET", f"/models/{name}/why").json()
    assert answer["now"] == 100.0
    assert answer["model"]["name"] == "mine"
    assert [replica["id"] for replica in answer["replicas"]] == ["mine-1"]
    assert answer["events"] == [
        {"at": 1.0, "model": "mine", "replica": None, "what": "start", "why": "a request waits", "reason": None}
    ]
    assert (answer["free_bytes"], answer["others"]) == (2**34 - 2**30, [])


def test_why_tells_the_facts_behind_an_event(api: Api) -> None:
    reason = Reason(cause=Cause.ROOM, other="mistral", waiting=3, waited_s=5.5, phases={"load": 1.5})
    api.store.record([Event(1.0, "mine", "mine-1", "drain", "", reason)])
    (event,) = api.ask("GET", "/models/mine/why").json()["events"]
    told = event["reason"]
    assert (told["cause"], told["other"], told["waiting"], told["phases"]) == ("room", "mistral", 3, {"load": 1.5})


def test_why_of_a_while_has_no_older_events(api: Api) -> None:
    api.store.record(Event(float(number), "mine", None, "start", "") for number in range(0, 100, 10))
    answer = api.ask("GET", "/models/mine/why", params={"since_s": 30.0}).json()
    assert [event["at"] for event in answer["events"]] == [70.0, 80.0, 90.0]
    assert (answer["since"], answer["has_more"]) == (70.0, False)
    cut = api.ask("GET", "/models/mine/why", params={"since_s": 30.0, "limit": 2}).json()
    assert ([event["at"] for event in cut["events"]], cut["has_more"]) == ([80.0, 90.0], True)


def test_the_history_is_of_all_models_also_of_those_that_are_no_longer_configured(api: Api) -> None:
    names = ["mine", SLASHES, "removed"]
    api.store.record(Event(float(90 + number), name, None, "start", "") for number, name in enumerate(names))
    answer = api.ask("GET", "/why", params={"since_s": 9.5}).json()
    assert [event["model"] for event in answer["events"]] == [SLASHES, "removed"]
    assert [model["name"] for model in answer["models"]] == ["mine", SLASHES]
    assert (answer["now"], answer["since"], answer["has_more"]) == (100.0, 90.5, False)


def test_a_model_that_waits_for_memory_is_told_who_holds_it(api: Api) -> None:
    waiting = replace(MODEL, name="other", aliases=(), waiting=2)
    api.control.show(MODEL, waiting, replicas=(REPLICA, replace(OTHERS, memory_bytes=0)))
    answer = api.ask("GET", "/models/other/why").json()
    assert [replica["id"] for replica in answer["others"]] == ["mine-1"]


def test_why_tells_the_last_events_only(api: Api) -> None:
    api.store.record(Event(float(number), "mine", None, "start", "") for number in range(50))
    answer = api.ask("GET", "/models/mine/why", params={"limit": 3}).json()
    assert [event["at"] for event in answer["events"]] == [47.0, 48.0, 49.0]


@pytest.mark.parametrize(
    "name", [SLASHES, "a/why", "why", "logs", "a/load/b", "a b", "ä/ü", "a%2Fb", "a?b#c", "a:b@c", "..", "a//b", "/a"]
)
def test_names_may_hold_what_urls_use(api: Api, name: str) -> None:
    api.control.show(replace(MODEL, name=name, aliases=()))
    api.control.lines[name] = [LogLines("r", (name,))]
    quoted = quote(name, safe="").replace(".", "%2E")
    assert api.ask("GET", f"/models/{quoted}/why").json()["model"]["name"] == name
    assert api.ask("GET", f"/models/{quoted}/logs").json()[0]["lines"] == [name]
    assert api.ask("POST", f"/models/{quoted}/load").status_code == 202
    assert api.store.wishes() == {ModelName(name): Wish.LOADED}


def test_slashes_in_names_need_not_be_quoted(api: Api) -> None:
    assert api.ask("GET", f"/models/{SLASHES}/why").json()["model"]["name"] == SLASHES


def test_a_load_is_a_wish_an_event_and_a_wake(api: Api) -> None:
    answer = api.ask("POST", "/models/gpt-4o-mini/load")
    assert answer.status_code == 202
    assert api.store.wishes() == {ModelName("mine"): Wish.LOADED}
    assert [(event.model, event.what) for event in api.store.events(None, 5)] == [("mine", "load")]
    assert answer.json()["events"][0]["what"] == "load"
    assert api.control.wakes == 1


def test_an_unload_ends_a_load(api: Api) -> None:
    api.ask("POST", "/models/mine/load")
    api.ask("POST", "/models/mine/unload")
    assert api.store.wishes() == {ModelName("mine"): Wish.UNLOADED}
    assert api.control.wakes == 2


def test_a_wish_that_is_refused_is_not_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.control, "names", lambda: {"new": "new"})  # configured since the last lap
    assert api.refusal("POST", "/models/new/load") == (
        503,
        "server_error",
        "not_planned_yet",
        "cannot find new in the plan: it was configured a moment ago (try again)",
    )
    assert api.store.wishes() == {}
    assert api.store.events(None, 5) == []


def test_loading_twice_is_harmless(api: Api) -> None:
    assert [api.ask("POST", "/models/mine/load").status_code for _ in range(2)] == [202, 202]
    assert api.store.wishes() == {ModelName("mine"): Wish.LOADED}


@pytest.mark.parametrize(("method", "path"), [("GET", "why"), ("GET", "logs"), ("POST", "load"), ("POST", "unload")])
def test_an_unknown_model_is_not_found_and_nothing_is_written(api: Api, method: str, path: str) -> None:
    assert api.refusal(method, f"/models/llama/{path}") == (
        404,
        "invalid_request_error",
        "model_not_found",
        f"cannot find model 'llama': there is no such model (there are: {SLASHES}, mine)",
    )
    assert api.store.wishes() == {}
    assert api.store.events(None, 5) == []
    assert api.control.wakes == 0


def test_a_misspelt_model_is_guessed(api: Api) -> None:
    assert api.refusal("GET", "/models/gpt-4o-mni/why")[3].endswith("(did you mean 'gpt-4o-mini'?)")


def test_a_long_list_of_models_is_cut(api: Api) -> None:
    api.control.show(*(replace(MODEL, name=f"number-{number:02}", aliases=()) for number in range(30)))
    assert api.refusal("GET", "/models/zzz/why")[3].endswith("number-06, number-07, and 22 more)")


def test_without_any_model_the_first_step_is_told(api: Api) -> None:
    api.control.show()
    assert api.refusal("GET", "/models/x/why")[3] == (
        "cannot find model 'x': no model is configured (try: modelgrid config init)"
    )


def test_logs_are_by_replica_and_as_many_as_asked_for(api: Api) -> None:
    api.control.lines["mine"] = [LogLines("mine-1", ("a", "b", "c")), LogLines("mine-2", ())]
    assert api.ask("GET", "/models/gpt-4o-mini/logs", params={"lines": 2}).json() == [
        {"replica": "mine-1", "lines": ["b", "c"]},
        {"replica": "mine-2", "lines": []},
    ]


def test_a_model_that_goes_while_its_logs_are_read_is_not_found(api: Api) -> None:
    assert api.refusal("GET", "/models/mine/logs")[2] == "model_not_found"


@pytest.mark.parametrize("lines", ["0", "-1", "10001", "many"])
def test_a_senseless_number_of_lines_is_refused(api: Api, lines: str) -> None:
    status, kind, code, message = api.refusal("GET", "/models/mine/logs", params={"lines": lines})
    assert (status, kind, code) == (422, "invalid_request_error", "invalid_request")
    assert "query.lines" in message


def test_a_key_is_shown_once(api: Api) -> None:
    answer = api.ask("POST", "/keys", json={"name": "laptop"})
    made = answer.json()
    assert answer.status_code == 201
    assert set(made) == {"key", "id", "name"}
    listed = api.ask("GET", "/keys")
    assert [(key["id"], key["name"], key["shown"], key["revoked"]) for key in listed.json()] == [
        (made["id"], "laptop", made["key"][:7], None)
    ]
    assert made["key"] not in listed.text
    assert api.store.keys()[0].sha256 not in listed.text
    assert api.control.wakes == 1


def test_a_key_is_revoked_by_name_or_id_and_stays_listed(api: Api) -> None:
    for name in ("a/b", "c"):
        api.ask("POST", "/keys", json={"name": name})
    assert api.ask("DELETE", "/keys/a%2Fb").json()["revoked"] > 0
    assert api.ask("DELETE", f"/keys/{api.store.keys()[1].id}").json()["name"] == "c"
    assert len(api.ask("GET", "/keys").json()) == 2
    assert api.control.wakes == 4


def test_an_unknown_key_is_not_found(api: Api) -> None:
    assert api.refusal("DELETE", "/keys/nobody") == (
        404,
        "invalid_request_error",
        "unknown_key",
        "cannot revoke key 'nobody': there is no such key (see: modelgrid key list)",
    )


def test_a_name_in_use_is_a_conflict(api: Api) -> None:
    api.ask("POST", "/keys", json={"name": "a"})
    assert api.refusal("POST", "/keys", json={"name": "a"})[:3] == (409, "invalid_request_error", "key_name_refused")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"nmae": "a"}', b'{"name": 3}', b'{"name": "a", "admin": true}'])
def test_a_key_request_that_makes_no_sense_is_refused(api: Api, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert api.refusal("POST", "/keys", content=body, headers=headers)[:3] == (
        422,
        "invalid_request_error",
        "invalid_request",
    )
    assert api.store.keys() == []


def test_config_is_text_as_the_controller_shows_it(api: Api) -> None:
    api.control.yaml = "models:\n  a: {key: '********'}\n"
    answer = api.ask("GET", "/config")
    assert (answer.text, answer.headers["content-type"]) == (api.control.yaml, "text/plain; charset=utf-8")


def test_a_store_that_cannot_be_read_is_said_so_and_is_our_fault(api: Api) -> None:
    api.store.broken = "its disk is gone"
    status, kind, code, message = api.refusal("POST", "/models/mine/load")
    assert (status, kind, code) == (503, "server_error", "store_error")
    assert "its disk is gone" in message
    assert api.control.wakes == 0


def test_an_unknown_path_and_a_wrong_method_have_the_same_shape(api: Api) -> None:
    assert api.refusal("GET", "/nothing")[:3] == (404, "invalid_request_error", "unknown_path")
    assert api.refusal("POST", "/status")[:3] == (405, "invalid_request_error", "method_not_allowed")


def test_a_defect_is_our_fault_and_tells_nothing_of_its_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall() -> NoReturn:
        raise KeyError("a secret")

    monkeypatch.setattr(api.control, "status", fall)
    assert api.refusal("GET", "/status") == (
        500,
        "server_error",
        "defect",
        "cannot answer GET /control/v1/status: KeyError in modelgrid (its log has the details)",
    )


VIRTUAL = replace(MODEL, name="smart", engine="virtual", aliases=("gpt-4o",), behind=(SLASHES, "mine"))


def test_why_of_a_virtual_model_tells_of_those_behind_it_in_their_order(api: Api) -> None:
    api.control.show(*STATUS.models, VIRTUAL, replicas=STATUS.replicas)
    answer = api.ask("GET", "/models/gpt-4o/why").json()
    assert (answer["model"]["name"], answer["model"]["behind"]) == ("smart", [SLASHES, "mine"])
    assert [model["name"] for model in answer["behind"]] == [SLASHES, "mine"]
    assert answer["replicas"] == answer["events"] == []
    assert api.ask("GET", "/models/mine/why").json()["behind"] == []


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [("POST", "load", "load"), ("POST", "unload", "unload"), ("GET", "logs", "show the logs of")],
)
def test_what_only_a_model_can_have_done_to_it_names_the_models(api: Api, method: str, path: str, what: str) -> None:
    api.control.show(*STATUS.models, VIRTUAL)
    assert api.refusal(method, f"/models/smart/{path}") == (
        409,
        "invalid_request_error",
        "model_is_virtual",
        f"cannot {what} smart: it is virtual, with nothing of its own to run ({what} one of the models behind it: "
        f"{SLASHES}, mine)",
    )
    assert api.store.wishes() == {}

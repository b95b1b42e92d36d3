"""Keys from the outside: what each opens, when it ends, who may administer, and what is written down of that."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.daemon import Daemon, faulty, free_port, until

CHAT = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests, with a key that administers."""
    config = {
        "gateway": {"port": free_port(), "workers": 2},
        "machine": {"memory": "1GiB"},
        "models": {"a": faulty(scaling={"min": 1})},
    }
    made = Daemon(tmp_path_factory.mktemp("keys"), config)
    try:
        made.start()
        made.until_state("a", "ready")
        _administered_without_a_key(made)
        (made.home / "ops").write_text(create(made, "ops", "--scope", "admin"))
        until("every worker asks for a key", lambda: all(ask(made, "GET", "/v1/models", "") == 401 for _ in range(20)))
        yield made
    finally:
        made.end()


def _administered_without_a_key(daemon: Daemon) -> None:
    """While there is none: programs of this machine may, pages may not."""
    with daemon.client() as client:
        assert client.get("/control/v1/status").json()["models"][0]["name"] == "a"
        for headers in ({}, {"content-type": "text/plain"}, {**JSON, "origin": "https://evil.example"}):
            assert client.post("/control/v1/models/a/load", headers=headers).status_code == 403
        assert daemon.model("a").wish is None
        assert client.post("/control/v1/models/a/load", headers={"x-modelgrid": "1"}).status_code == 202
        until("a is wished", lambda: daemon.model("a").wish == "loaded")


def create(daemon: Daemon, name: str, *options: str) -> str:
    done = daemon.run("key", "create", name, *options, "--json")
    assert done.returncode == 0, done.stderr
    key: str = json.loads(done.stdout)["key"]
    return key


def ops(daemon: Daemon) -> str:
    return (daemon.home / "ops").read_text()


def send(daemon: Daemon, method: str, path: str, key: str, **request: Any) -> httpx.Response:
    with daemon.client(headers={"authorization": f"Bearer {key}"} if key else {}) as client:
        return client.request(method, path, **request)


def ask(daemon: Daemon, method: str, path: str, key: str, **request: Any) -> int:
    return send(daemon, method, path, key, **request).status_code


def everywhere(daemon: Daemon, key: str, status: int, deadline_s: float = 5.0) -> None:
    """Wait until every worker answers so: each request is a connection of its own, which any may take."""
    until(
        f"workers answer {status}",
        lambda: all(ask(daemon, "GET", "/v1/models", key) == status for _ in range(8)),
        deadline_s,
    )


def test_each_scope_opens_its_own_and_nothing_else(daemon: Daemon) -> None:
    keys = {
        "caller": create(daemon, "caller"),
        "metrics": create(daemon, "prometheus", "--scope", "metrics"),
        "admin": ops(daemon),
        "both": create(daemon, "both", "--scope", "admin", "--scope", "caller"),
        "embeds": create(daemon, "embeds", "--operations", "embeddings"),
    }
    for key in (keys["caller"], keys["both"], keys["embeds"]):
        everywhere(daemon, key, 200)
    everywhere(daemon, keys["metrics"], 403)
    opened = {
        name: (
            ask(daemon, "POST", "/v1/chat/completions", key, json=CHAT),
            ask(daemon, "GET", "/metrics", key),
            ask(daemon, "GET", "/control/v1/keys", key),
        )
        for name, key in keys.items()
    }
    assert opened == {
        "caller": (200, 403, 403),
        "metrics": (403, 200, 403),
        "admin": (403, 200, 200),
        "both": (200, 200, 200),
        "embeds": (403, 403, 403),
    }
    error = send(daemon, "GET", "/control/v1/keys", keys["caller"]).json()["error"]
    assert (error["code"], "scope admin" in error["message"]) == ("missing_scope", True)


def test_a_key_that_expires_and_a_secret_that_is_rotated_out_end_while_the_controller_is_away(daemon: Daemon) -> None:
    old = create(daemon, "rotating")
    everywhere(daemon, old, 200)
    rotated = time.time()
    done = daemon.run("key", "rotate", "rotating", "--grace", "10s", "--json")
    new = json.loads(done.stdout)["key"]
    everywhere(daemon, new, 200)
    made = time.time()
    short = create(daemon, "short", "--expires", "8s")
    everywhere(daemon, short, 200)
    (controller,) = daemon.controllers()
    controller.suspend()
    try:
        everywhere(daemon, short, 401, 15)
        assert time.time() > made + 8.0
        everywhere(daemon, old, 401, 15)
        assert time.time() > rotated + 10.0
        assert ask(daemon, "GET", "/v1/models", new) == 200
        refused = send(daemon, "GET", "/v1/models", short).json()["error"]
        assert (refused["code"], "'short' has expired" in refused["message"]) == ("key_expired", True)
    finally:
        controller.resume()


def test_an_admin_makes_groups_and_keys_which_share_a_limit_over_all_workers(daemon: Daemon) -> None:
    key = ops(daemon)
    assert ask(daemon, "PUT", "/control/v1/groups/team", key, json={"requests_per_minute": 5}) == 200
    made = []
    for name in ("ann", "ben"):
        answer = send(daemon, "POST", "/control/v1/keys", key, json={"name": name, "group": "team"})
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        made.append(answer.json()["key"])
    for one in made:
        everywhere(daemon, one, 200)
    statuses = [ask(daemon, "POST", "/v1/chat/completions", one, json=CHAT) for one in made * 5]
    assert (statuses.count(200), statuses.count(429)) == (5, 5)
    shown = {one["name"]: one for one in send(daemon, "GET", "/control/v1/keys", key).json()}
    assert (shown["ann"]["group"], shown["ben"]["group"]) == ("team", "team")
    assert "sha256" not in json.dumps(shown)
    assert "team" in daemon.run("key", "groups").stdout


@pytest.mark.parametrize(
    "extra",
    [
        {"sha256": "0" * 64},
        {"id": "mine"},
        {"revoked": None},
        {"former": []},
        {"created": 0},
        {"is_admin": True},
        {"scopes": ["owner"]},
        {"scopes": []},
        {"operations": ["nothing"]},
        {"expires": 1},
        {"expires": "never"},
        {"requests_per_minute": -1},
        {"group": "no such"},
        {"name": "a\nb"},
    ],
)
def test_nothing_is_assigned_that_a_request_may_not_say(daemon: Daemon, extra: dict[str, Any]) -> None:
    key = ops(daemon)
    before = send(daemon, "GET", "/control/v1/keys", key).json()
    assert ask(daemon, "POST", "/control/v1/keys", key, json={"name": "massive", **extra}) in (404, 409, 422)
    assert send(daemon, "GET", "/control/v1/keys", key).json() == before


def test_names_that_would_be_statements_or_log_lines_are_names_or_refused(daemon: Daemon) -> None:
    key = ops(daemon)
    hostile = "x'); DROP TABLE keys; --"
    answer = send(daemon, "POST", "/control/v1/keys", key, json={"name": hostile})
    assert answer.status_code == 201
    assert ask(daemon, "DELETE", f"/control/v1/keys/{answer.json()['id']}", key) == 200
    forged = "a\r\n2026-01-01 00:00:00 [info] controller.forged \x1b[2J"
    assert ask(daemon, "POST", "/control/v1/keys", key, json={"name": forged}) == 409
    assert ask(daemon, "POST", "/control/v1/models/a%0d%0aforged%1b[2J/load", key) == 404
    assert len(send(daemon, "GET", "/control/v1/keys", key).json()) > 1
    for text in (daemon.log(), daemon.output, daemon.run("audit").stdout):
        assert "\ncontroller.forged" not in text
        assert "\x1b[2J" not in text
        assert not [line for line in text.splitlines() if line.startswith(("2026-01-01", "forged"))]


def test_what_was_done_and_tried_is_written_down_with_who_did_it(daemon: Daemon) -> None:
    key = ops(daemon)
    admin = next(one for one in send(daemon, "GET", "/control/v1/keys", key).json() if one["name"] == "ops")
    assert ask(daemon, "POST", "/control/v1/models/a/unload", key) == 202
    assert ask(daemon, "POST", "/control/v1/models/nothing/load", key, headers={"x-modelgrid-by": "owner"}) == 404
    assert daemon.run("model", "load", "a").returncode == 0
    told = json.loads(daemon.run("audit", "--json").stdout)["audit"]
    who = [(deed["who"], deed["name"], deed["what"], deed["target"], deed["outcome"]) for deed in told]
    assert who[0] == ("anyone", "", "model.load", "a", "ok")
    assert ("owner", "", "key.create", "ops", "ok") in who
    assert who[-3:] == [
        (admin["id"], "ops", "model.unload", "a", "ok"),
        (admin["id"], "ops", "model.load", "nothing", "model_not_found"),
        ("owner", "", "model.load", "a", "ok"),
    ]
    assert send(daemon, "GET", "/control/v1/audit?limit=3", key).json() == told[-3:]
    assert f"ops ({admin['id']})" in daemon.run("audit").stdout
    assert key not in json.dumps(told)


def test_a_revoked_admin_administers_no_more(daemon: Daemon) -> None:
    key = create(daemon, "leaving", "--scope", "admin")
    until("it may", lambda: all(ask(daemon, "GET", "/control/v1/status", key) == 200 for _ in range(8)))
    assert ask(daemon, "DELETE", "/control/v1/keys/leaving", key) == 200
    until("it may not", lambda: all(ask(daemon, "GET", "/control/v1/status", key) == 401 for _ in range(8)))


def test_no_secret_is_kept_or_written_anywhere(daemon: Daemon) -> None:
    new = json.loads(daemon.run("key", "rotate", "ops", "--grace", "1h", "--json").stdout)["key"]
    secrets = [ops(daemon).encode(), new.encode()]
    for path in Path(daemon.home).rglob("*"):
        if path.is_file() and path.name != "ops":
            assert not [secret for secret in secrets if secret in path.read_bytes()], path
    for process in daemon.processes():
        assert not [secret for secret in secrets if secret.decode() in " ".join(process.cmdline())]

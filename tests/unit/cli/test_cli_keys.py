"""Keys are made, listed and revoked without a daemon, and a running one sees it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from modelgrid.config.paths import Paths
from modelgrid.spec import Quota, Scope
from modelgrid.store import SqliteStore, open_store

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_key_is_printed_alone_so_that_a_shell_can_hold_it(run: Run, paths: Paths) -> None:
    done = run("key", "create", "laptop")
    assert done.returncode == 0
    assert done.stdout.startswith("mg-")
    assert done.stdout.count("\n") == 1
    assert "not shown again" in done.stderr
    (key,) = open_store(paths.store).keys()
    assert (key.name, key.shown) == ("laptop", done.stdout[:7])


def test_a_key_as_json(run: Run) -> None:
    answer = json.loads(run("key", "create", "laptop", "--json").stdout)
    assert set(answer) == {"key", "id", "name"}
    listed = run("key", "list", "--json").stdout
    assert json.loads(listed)["keys"][0]["id"] == answer["id"]
    assert answer["key"] not in listed
    assert answer["key"] not in run("key", "list").stdout


def test_a_key_is_made_where_modelgrid_never_ran(run: Run) -> None:
    assert "there are no keys" in run("key", "list").stdout
    assert run("key", "create", "first").returncode == 0


def test_keys_are_listed_and_revoked(run: Run) -> None:
    run("key", "create", "a")
    run("key", "create", "b")
    assert run("key", "revoke", "a").stdout.startswith("revoked key 'a' (mg-")
    rows = [line.split() for line in run("key", "list").stdout.splitlines()]
    assert rows[0] == ["ID", "NAME", "KEY", "CREATED", "STATE", "LIMITS", "MAY", "USE"]
    assert [(row[1], row[4:]) for row in rows[1:]] == [("a", ["revoked", "-", "all"]), ("b", ["in", "use", "-", "all"])]


def test_a_key_may_use_so_much_of_so_many_models(run: Run, store: SqliteStore) -> None:
    limits = ("--requests-per-minute", "60", "--tokens-per-minute", "100000", "--concurrency", "4")
    assert run("key", "create", "team", *limits, "--models", "smart, mine,mine").returncode == 0
    (key,) = store.keys()
    assert key.quota == Quota(requests_per_minute=60, tokens_per_minute=100_000, concurrency=4)
    assert key.models == ("smart", "mine")
    (listed,) = json.loads(run("key", "list", "--json").stdout)["keys"]
    assert (listed["requests_per_minute"], listed["concurrency"], listed["models"]) == (60, 4, ["smart", "mine"])
    shown = run("key", "list").stdout.splitlines()[1]
    assert shown.endswith("60 requests/min, 100000 tokens/min, 4 at once  smart, mine")


def test_a_limit_is_a_number_from_one_and_names_are_names(run: Run, store: SqliteStore) -> None:
    for words, said in (
        (("--concurrency", "0"), "0 is not in the range x>=1"),
        (("--models", "a,,b"), "write names of models with commas between them"),
        (("--models", ""), "write names of models with commas between them"),
    ):
        done = run("key", "create", "team", *words)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert store.keys() == []


def test_a_refused_key_says_what_to_do(run: Run) -> None:
    run("key", "create", "a")
    again = run("key", "create", "a")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith("Error: cannot create a key named 'a': there is one")
    unknown = run("key", "revoke", "nobody")
    assert unknown.returncode == 1
    assert unknown.stderr == "Error: cannot revoke key 'nobody': there is no such key (see: modelgrid key list)\n"


def test_a_running_controller_sees_a_new_key(run: Run, store: SqliteStore) -> None:
    before = store.version()
    run("key", "create", "a")
    assert store.version() != before
    assert len(store.keys()) == 1


def test_an_unreadable_store_is_told_with_its_place_and_the_next_step(run: Run, paths: Paths) -> None:
    paths.store.write_bytes(b"no database\n" * 500)
    done = run("key", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: cannot read the store at {paths.store}: file is not a database "
        "(move it away and start again: running engines are found and adopted)\n"
    )


def test_a_key_ends_when_it_was_said(run: Run, store: SqliteStore) -> None:
    now = time.time()
    assert run("key", "create", "month", "--expires", "30d").returncode == 0
    assert run("key", "create", "day", "--expires", "2999-01-02").returncode == 0
    month, day = store.keys()
    assert month.expires is not None
    assert abs(month.expires - now - 30 * 86_400) < 600
    assert day.expires == datetime(2999, 1, 2).timestamp()
    assert "in use for 30 days" in run("key", "list").stdout


@pytest.mark.parametrize("written", ["2001-01-01", "0s", "-1d", "soon", "9999-01-01", "", "99999999999999d"])
def test_an_end_that_is_none_makes_no_key(run: Run, store: SqliteStore, written: str) -> None:
    done = run("key", "create", "a", f"--expires={written}")
    assert (done.returncode, "--expires" in done.stderr) == (2, True), done.stderr
    assert store.keys() == []


def test_a_key_is_for_operations_and_scopes_that_there_are(run: Run, store: SqliteStore) -> None:
    words = ("--operations", "chat,embeddings", "--scope", "caller", "--scope", "admin", "--models", "a")
    assert run("key", "create", "team", *words).returncode == 0
    (key,) = store.keys()
    assert (key.operations, key.scopes) == (("chat", "embeddings"), (Scope.CALLER, Scope.ADMIN))
    assert run("key", "list").stdout.splitlines()[1].endswith("a for chat, embeddings + admin")
    near = run("key", "create", "b", "--operations", "chats")
    assert (near.returncode, "did you mean 'chat'?" in near.stderr) == (2, True)
    assert run("key", "create", "b", "--scope", "owner").returncode == 2


def test_a_rotated_key_is_printed_alone_and_its_former_secret_is_told_of(run: Run, store: SqliteStore) -> None:
    first = run("key", "create", "ci").stdout.strip()
    done = run("key", "rotate", "ci", "--grace", "1h")
    assert done.stdout.startswith("mg-")
    assert done.stdout.count("\n") == 1
    assert done.stdout.strip() != first
    assert "(its last secret for " in run("key", "list").stdout
    at_once = json.loads(run("key", "rotate", "ci", "--json").stdout)
    assert set(at_once) == {"key", "id", "name"}
    assert store.keys()[0].former == ()
    unknown = run("key", "rotate", "none")
    assert (unknown.returncode, "cannot rotate key 'none'" in unknown.stderr) == (1, True)
    assert run("key", "rotate", "ci", "--grace", "soon").returncode == 2


def test_keys_share_the_limits_of_their_group(run: Run, store: SqliteStore) -> None:
    assert "there are no groups" in run("key", "groups").stdout
    refused = run("key", "create", "ann", "--group", "team")
    assert (refused.returncode, "modelgrid key group 'team'" in refused.stderr) == (1, True)
    assert run("key", "group", "team", "--concurrency", "2").stdout == "group 'team' may use: 2 at once\n"
    assert run("key", "create", "ann", "--group", "team").returncode == 0
    assert run("key", "group", "team", "--requests-per-minute", "9").returncode == 0
    assert store.groups() == {"team": Quota(requests_per_minute=9)}
    rows = run("key", "groups").stdout.splitlines()
    assert [row.split() for row in rows] == [["GROUP", "LIMITS", "KEYS"], ["team", "9", "requests/min", "ann"]]
    assert json.loads(run("key", "groups", "--json").stdout)["groups"][0]["keys"] == ["ann"]
    assert run("key", "list").stdout.splitlines()[1].endswith("all (group team)")
    assert run("key", "group", "team", "--remove").returncode == 1
    assert run("key", "group", "team", "--remove", "--concurrency", "1").returncode == 2
    run("key", "revoke", "ann")
    assert run("key", "group", "team", "--remove").stdout == "removed group 'team'\n"


def test_what_was_done_is_told_without_a_secret(run: Run) -> None:
    assert run("audit").stdout == "nothing was done\n"
    secret = run("key", "create", "ops", "--scope", "admin").stdout.strip()
    run("key", "create", "ops")
    run("key", "rotate", "ops")
    run("key", "group", "team")
    run("key", "revoke", "ops")
    shown = run("audit").stdout
    rows = [line.split()[1:] for line in shown.splitlines()]
    assert rows[0] == ["WHO", "WHAT", "TO", "OUTCOME"]
    assert [row[1] for row in rows[1:]] == ["key.create", "key.rotate", "group.set", "key.revoke"]
    assert secret not in shown
    told = json.loads(run("audit", "--json", "-n", "1").stdout)["audit"]
    assert [(deed["who"], deed["what"], deed["target"], deed["outcome"]) for deed in told] == [
        ("owner", "key.revoke", "ops", "ok")
    ]
    assert len(json.loads(run("audit", "--json", "--since", "1h").stdout)["audit"]) == 4
    assert run("audit", "--since", "soon").returncode == 2

"""Bad input, through the real program: each message names the value, the place and the next step."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import LOOPBACK, Daemon, faulty, free_port, until
from modelgrid.engines import ENGINES

REMOTE = {"engine": "remote", "url": "http://127.0.0.1:9/v1"}


def refused(daemon: Daemon, *arguments: str) -> str:
    """What `serve` says when it must not serve."""
    if not (daemon.home / "modelgrid.yaml").exists():
        daemon.write(daemon.config)
    done = daemon.run("serve", *arguments)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert daemon.processes() == []
    return done.stderr


def message(answer: httpx.Response) -> str:
    text: str = answer.json()["error"]["message"]
    return text


def post(daemon: Daemon, content: bytes | Iterator[bytes]) -> httpx.Response:
    with daemon.client() as client:
        return client.post(
            "/v1/chat/completions", content=content, headers={"content-type": "application/json", "expect": ""}
        )


def body_of(size: int) -> bytes:
    head = b'{"model":"a","messages":[{"role":"user","content":"'
    tail = b'"}]}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


# What `serve` refuses, before anything is started.


def test_every_problem_of_the_configuration_at_once_with_its_place_and_the_next_step(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({})
    daemon.write(
        "models:\n"
        "  a:\n"
        "    engine: vlm\n"
        "    source: owner/name\n"
        "  b:\n"
        '    engine: custom\n    command: [my_engine, --port, "{port}"]\n'
        "  c:\n"
        "    engine: remote\n"
        "    url: http://127.0.0.1:9/v1\n"
        "    key: ${SURELY_NOT_SET}\n"
    )
    place = "modelgrid.yaml"  # as it is seen from the folder that it lies in
    expected = [
        f"{place}:3:13: models.a.engine: 'vlm' is not an engine: there is {', '.join(ENGINES)}; did you mean 'vllm'?",
        f"{place}:5:3: models.b.needs.memory: is missing: "
        "say how much memory the command takes (needs: {memory: 2GiB})",
        f"{place}:11:10: models.c.key: the environment variable SURELY_NOT_SET is not set: "
        "set it, or write ${SURELY_NOT_SET:-a default}",
    ]
    assert refused(daemon).splitlines() == ["Error: cannot serve this configuration:", *expected]
    checked = daemon.run("config", "check")
    assert (checked.returncode, checked.stderr.splitlines()[1:]) == (1, expected)


def test_two_models_of_one_name(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({})
    daemon.write("models:\n  a: {engine: remote, url: http://h/v1}\n  a: {engine: remote, url: http://i/v1}\n")
    assert "modelgrid.yaml:3:3: models.a: two models of one name: 'a' is on line 2 and on line 3; rename" in refused(
        daemon
    )


def test_a_file_that_is_no_yaml(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({})
    daemon.write("models:\n  a: [1\n")
    assert re.search(r"modelgrid\.yaml:\d+:\d+: this is not YAML: ", refused(daemon))


def test_a_configuration_that_is_not_there(make_daemon: MakeDaemon) -> None:
    told = refused(make_daemon({}), "--config", "nowhere.yaml")
    assert "--config: there is no file" in told
    assert "nowhere.yaml (make one: modelgrid config init)" in told


def test_a_port_in_use_names_who_holds_it_and_another_port(make_daemon: MakeDaemon) -> None:
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        holder.listen()
        port = holder.getsockname()[1]
        told = refused(make_daemon({"a": REMOTE}, port=port))
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use by process {os.getpid()} (" in told
    assert f"(try: modelgrid serve --port {port + 1})" in told


def test_a_port_in_use_by_another_modelgrid_says_so(make_daemon: MakeDaemon) -> None:
    first = make_daemon({"a": REMOTE}).start()
    told = refused(make_daemon({"a": REMOTE}, port=first.port))
    assert re.search(r"the port is in use by process \d+ \(another modelgrid\)", told)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_this_machines(make_daemon: MakeDaemon, host: str) -> None:
    daemon = make_daemon({"a": REMOTE}, host=host)
    daemon.write(daemon.config)
    assert daemon.run("key", "create", "somebody").returncode == 0
    told = refused(daemon)
    assert f"cannot listen on {host}:{daemon.port}: " in told
    assert "try: modelgrid serve --host 127.0.0.1" in told


def test_a_second_serve_of_the_same_home_names_the_first(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": REMOTE}).start()
    second = daemon.run("serve", "--port", str(free_port()))
    assert second.returncode == 1
    assert f"modelgrid runs already, as process {daemon.supervisor().pid} (" in second.stderr
    assert "modelgrid status; end it: modelgrid stop; or set another MODELGRID_HOME" in second.stderr
    assert daemon.model("a").name == "a"  # and the first one serves on


def test_other_machines_are_let_in_only_with_a_key(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()}, host="0.0.0.0")
    told = refused(daemon)
    assert "cannot serve on 0.0.0.0: without a key anybody there could use it" in told
    assert "make one: modelgrid key create NAME" in told
    assert "serve on gateway.host 127.0.0.1" in told
    key = json.loads(daemon.run("key", "create", "laptop", "--json").stdout)["key"]
    daemon.start()
    until("the address is told", lambda: f"modelgrid serves {daemon.url}/v1" in daemon.output)
    assert f"listening on 0.0.0.0:{daemon.port}" in daemon.output
    assert daemon.chat("a").status_code == 401
    with daemon.client(headers={"authorization": f"Bearer {key}"}) as client:
        assert client.get("/v1/models").status_code == 200


def test_a_store_that_is_no_database(make_daemon: MakeDaemon) -> None:
    daemon, store = _with_store(make_daemon)
    store.write_bytes(b"no database at all " * 100)
    told = refused(daemon)
    assert f"cannot read the store at {store}: file is not a database (move it away and start again: " in told
    listed = daemon.run("key", "list")
    assert (listed.returncode, listed.stderr) == (1, told)


def test_a_store_that_is_a_folder(make_daemon: MakeDaemon) -> None:
    daemon, store = _with_store(make_daemon)
    store.mkdir()
    assert f"cannot open the store at {store}: it is a folder (move it away and start again: " in refused(daemon)


def test_a_store_of_a_newer_version(make_daemon: MakeDaemon) -> None:
    daemon, store = _with_store(make_daemon)
    with sqlite3.connect(store) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    told = refused(daemon)
    assert f"cannot read the store at {store}: a newer modelgrid wrote it (its schema is 99, " in told
    assert "(upgrade modelgrid, or move it away" in told


def _with_store(make_daemon: MakeDaemon) -> tuple[Daemon, Path]:
    daemon = make_daemon({"a": REMOTE})
    store = daemon.home / "state" / "modelgrid.db"
    store.parent.mkdir(parents=True)
    return daemon, store


def test_stop_with_nothing_running_says_where_it_looked(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({})
    daemon.home.mkdir()
    for _ in range(2):
        stopped = daemon.run("stop")
        assert stopped.returncode == 3
        assert f"nothing to stop: no modelgrid with its state in {daemon.home / 'state'} is running" in stopped.stderr
        assert "set MODELGRID_HOME" in stopped.stderr
        (daemon.home / "run").mkdir(exist_ok=True)


# What callers are told about their request.


@pytest.fixture
def served(make_daemon: MakeDaemon) -> Daemon:
    return make_daemon({"a": faulty(), "too-large": faulty(memory="2GiB")}, body="64KiB").start()


def test_requests_that_cannot_be_served_are_told_why(served: Daemon) -> None:
    """One daemon for all of them: none of them may harm it."""
    _a_model_that_is_not_there(served)
    _malformed_json(served)
    _a_body_over_the_limit(served)
    _a_model_larger_than_the_budget(served)
    assert served.chat("a").status_code == 200


def _a_model_that_is_not_there(served: Daemon) -> None:
    answer = served.chat("b")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert message(answer) == "cannot find the model 'b': there are a, too-large (GET /v1/models lists them)"
    for words in (["why"], ["logs"], ["model", "load"], ["model", "unload"]):
        asked = served.run(*words, "too-larg")
        assert asked.returncode == 1
        assert "cannot find model 'too-larg': there is no such model (did you mean 'too-large'?)" in asked.stderr


def _malformed_json(served: Daemon) -> None:
    answer = post(served, b'{"model": "a",\n "messages": [}')
    assert answer.status_code == 400
    assert message(answer).startswith("cannot read the request's body: JSON is malformed")
    assert "line 2 column 15" in message(answer)
    for body, what in (
        (b"", "body"),
        (b"[]", "object"),
        (b'{"model": 7}', "string"),
        (b'{"stream": true}', "names none"),
    ):
        answer = post(served, body)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert what in message(answer)


def _a_body_over_the_limit(served: Daemon) -> None:
    limit = 64 * 1024
    assert post(served, body_of(limit)).status_code == 200
    whole, chunked = post(served, body_of(limit + 1)), post(served, iter([body_of(limit)[:-2], b" ", b"}]}"]))
    for answer in (whole, chunked):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert message(answer) == (
            "cannot take the request's body: it is larger than 64.0 KiB (send less, or raise gateway.body)"
        )


def _a_model_larger_than_the_budget(served: Daemon) -> None:
    why = (
        "cannot place too-large: it needs 2.0 GiB, models may take 1.0 GiB "
        "(try: a smaller model, or raise machine.memory)"
    )
    answer = served.chat("too-large")
    assert answer.status_code == 503
    assert why in message(answer)
    assert int(answer.headers["retry-after"]) >= 1
    assert served.model("too-large").state == "unavailable"
    assert why in served.run("why", "too-large").stdout
    assert f"which it can't now: {why}" in served.run("model", "load", "too-large").stdout
    waited = served.run("model", "load", "too-large", "--wait")
    assert waited.returncode == 1
    assert f"cannot load too-large: {why}" in waited.stderr


# Engines that don't come up: their callers are told what the engine wrote.


def test_a_command_that_does_not_exist_is_named_to_the_caller(make_daemon: MakeDaemon) -> None:
    model = {"engine": "custom", "command": ["no-such-engine", "{port}"], "needs": {"memory": "1MiB"}}
    daemon = make_daemon({"a": model}).start()
    answer = daemon.chat("a")
    assert answer.status_code == 503
    assert "there is no program no-such-engine" in message(answer)
    assert "correct the model's command" in message(answer)


def test_an_engine_that_never_becomes_ready_shows_its_last_words(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--never-healthy", start_timeout="2s")}).start()
    begun = time.monotonic()
    answer = daemon.chat("a")
    assert time.monotonic() - begun < 15
    assert answer.status_code == 503
    told = message(answer)
    assert "a failed once: not ready after 2.0s" in told
    assert "start_timeout" in told
    assert "GET /health answered 503" in told
    assert "the last lines of its log:\n" in told
    assert "modelgrid why a" in told
    until("it is stopped", lambda: not daemon.engines())
    assert "not ready after 2.0s" in daemon.run("why", "a").stdout
    assert daemon.run("logs", "a").stdout != ""


def test_an_engine_that_crash_loops_is_told_after_three_tries_and_recovers(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    cause = tmp_path / "cause"
    cause.touch()
    daemon = make_daemon({"a": faulty("--crash-file", str(cause))}).start()
    answer = daemon.chat("a")  # waits through the first tries
    told = message(answer)
    assert answer.status_code == 503
    assert "a failed 3 times in a row: " in told
    assert f"{cause}" in told  # what the engine wrote last
    assert int(answer.headers["retry-after"]) >= 1
    assert daemon.model("a").state == "unavailable"

    begun = time.monotonic()
    again = daemon.chat("a")
    assert (again.status_code, time.monotonic() - begun < 0.5) == (503, True)
    shown = daemon.run("why", "a").stdout
    assert "failed 3 times in a row" in shown
    assert "It is tried again at " in shown

    cause.unlink()
    until("its cause gone, it is served again", lambda: daemon.chat("a").status_code == 200, 30)
    assert daemon.model("a").state == "ready"


def test_an_engine_that_exits_at_its_start_has_its_code_and_last_words_told(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--exit-at-start", "7", scaling={"min": 1})}).start()
    answer = daemon.chat("a")
    assert answer.status_code == 503
    assert "exited with code 7" in message(answer)
    until("serve tells it", lambda: "failed       a: exited with code 7" in daemon.output)
    assert "more: modelgrid why a" in daemon.output


# Files of configuration that change while it serves.


def test_a_bad_edit_is_reported_and_what_runs_goes_on(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()}).start()
    assert daemon.chat("a").status_code == 200
    [before] = daemon.replicas()
    daemon.write({**daemon.config, "models": {"a": {**faulty(), "engine": "costum"}}})
    error: Any = until("the edit is refused", lambda: daemon.status().config_error)
    assert "modelgrid.yaml" in error
    assert "'costum' is not an engine" in error
    assert "did you mean 'custom'?" in error
    assert daemon.chat("a").status_code == 200
    daemon.write(daemon.config)
    until("the mended edit is taken", lambda: daemon.status().config_error is None)
    assert [replica.id for replica in daemon.replicas()] == [before.id]

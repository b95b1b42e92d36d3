"""The configuration and the keys are changed while modelgrid serves, and callers notice what they should, only."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from e2e.traffic import Crowd, Stream, ask, failed
from modelgrid.client import ControlError, NotRunning


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    return make_daemon({"a": faulty("--chunk-delay", "0.02"), "b": faulty("--chunks", "40", "--chunk-delay", "0.05")})


def _edit(daemon: Daemon, **models: dict[str, Any] | None) -> None:
    """Write the configuration with `models` changed, or removed where None."""
    changed = {name: model for name, model in {**daemon.config["models"], **models}.items() if model is not None}
    daemon.config = {**daemon.config, "models": changed}
    daemon.write(daemon.config)


def test_a_model_that_is_added_is_served(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.chat("new").status_code == 404
    _edit(daemon, new=faulty())
    until("it is known", lambda: "new" in _listed(daemon), 5)
    assert daemon.chat("new").status_code == 200


def test_a_model_that_is_removed_finishes_what_it_has_and_goes(daemon: Daemon) -> None:
    daemon.start()
    stream = Stream(daemon, "b")
    until("it streams", lambda: stream.has_begun)
    _edit(daemon, b=None)
    until("it is not listed", lambda: "b" not in _listed(daemon), 5)
    assert not stream.is_over
    assert daemon.chat("b").status_code == 404
    assert stream.result().is_served
    until("its engine has gone", lambda: not daemon.engines())


def test_a_model_whose_arguments_change_is_replaced_and_no_request_fails(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.chat("a").status_code == 200
    old = daemon.replicas("a")[0].pid
    with Crowd(daemon, ["a"], callers=4) as crowd:
        until("all goes well", lambda: crowd.served() > 10)
        _edit(daemon, a=faulty("--chunk-delay", "0.02", "--model", "a", "--chunks", "6"))
        until("the new one serves", lambda: any("word5" in reply.text for reply in list(crowd.replies)))
        served = crowd.served()
        until("all goes well", lambda: crowd.served() > served + 10)
    assert failed(crowd.replies) == []
    assert [replica.pid for replica in daemon.replicas("a") if replica.pid != old]
    assert old not in [process.pid for process in daemon.engines()]


def test_what_does_not_concern_the_engine_restarts_nothing(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.chat("a").status_code == 200
    old = daemon.replicas("a")[0]
    _edit(daemon, a={**daemon.config["models"]["a"], "aliases": ["other"], "scaling": {"idle": "1h"}})
    until("the alias is known", lambda: daemon.chat("other").status_code == 200, 5)
    assert [(replica.id, replica.pid) for replica in daemon.replicas("a")] == [(old.id, old.pid)]


def test_a_bad_edit_is_reported_and_changes_nothing_until_it_is_mended(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.chat("a").status_code == 200
    old = daemon.replicas("a")[0].pid
    daemon.write("models:\n  a: {engine: nonesuch}\n  b: [\n")
    error = until("it is reported", lambda: daemon.status().config_error, 5)
    assert "modelgrid.yaml" in error
    assert "modelgrid.yaml" in daemon.run("status").stdout
    assert daemon.chat("b").status_code == 200  # starts as it was
    assert daemon.replicas("a")[0].pid == old
    _edit(daemon, new=faulty())
    until("it is mended", lambda: daemon.status().config_error is None, 5)
    assert daemon.chat("new").status_code == 200
    assert daemon.replicas("a")[0].pid == old


def test_a_bad_edit_does_not_keep_a_killed_controller_away(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.chat("a").status_code == 200
    old = daemon.replicas("a")[0].pid
    daemon.write("models: {a: {engine: nonesuch}}\n")
    until("it is reported", lambda: daemon.status().config_error, 5)
    (controller,) = daemon.controllers()
    controller.kill()
    until("another has taken over", lambda: _has_replicas(daemon))
    assert daemon.status().config_error
    assert daemon.replicas("a")[0].pid == old
    assert daemon.chat("b").status_code == 200


def test_keys_are_asked_for_and_refused_within_a_second_of_their_change(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.chat("a").status_code == 200
    first, second = _create_key(daemon, "first"), _create_key(daemon, "second")
    until("a key is asked for", lambda: daemon.chat("a").status_code == 401, 1.5)  # a second, and the look itself
    until("both keys open", lambda: _with_key(daemon, first) == _with_key(daemon, second) == 200, 1.5)
    assert daemon.run("key", "revoke", "first").returncode == 0
    until("it is refused", lambda: _with_key(daemon, first) == 401, 1.5)
    assert _with_key(daemon, second) == 200
    assert _with_key(daemon, second + "x") == 401
    with daemon.client() as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").status_code == 200
    for secret in (first, second):
        assert secret not in daemon.log()
        assert secret.encode() not in (daemon.home / "state" / "modelgrid.db").read_bytes()


def _listed(daemon: Daemon) -> list[str]:
    with daemon.client() as client:
        return [model["id"] for model in client.get("/v1/models").json()["data"]]


def _create_key(daemon: Daemon, name: str) -> str:
    made = daemon.run("key", "create", name, "--json")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


def _with_key(daemon: Daemon, key: str) -> int:
    with daemon.client(headers={"authorization": f"Bearer {key}"}) as client:
        return ask(client, "a").status


def _has_replicas(daemon: Daemon) -> bool:
    with contextlib.suppress(NotRunning, ControlError):
        return bool(daemon.status().replicas)
    return False

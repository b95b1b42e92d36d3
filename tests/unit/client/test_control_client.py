"""The client against the real app, on a real socket."""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from modelgrid.api.fake import FakeControl, fake_daemon
from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.spec import LogLines, ModelName, ModelStatus, Quota, ReplicaStatus, Scope, Status, Wish
from modelgrid.store import MemoryStore

MODEL = ModelStatus(
    name="Qwen/Qwen2.5-7B",
    engine="vllm",
    source="Qwen/Qwen2.5-7B",
    aliases=("gpt",),
    state="ready",
    why="",
    memory_bytes=None,
    waiting=3,
    in_flight=None,
    last_used=99.5,
    min=1,
    max=2,
    wish="loaded",
    retry_at=None,
    operations=("chat",),
)
REPLICA = ReplicaStatus(
    "r-1", MODEL.name, "ready", 90.0, "", 5, None, None, "http://127.0.0.1:4000/v1", 7, None, {"spawn": 0.5}
)
STATUS = Status(
    version="0.1.0",
    now=100.0,
    started=10.0,
    config="/etc/modelgrid.yaml",
    config_error="modelgrid.yaml:3:1: models: …",
    memory_bytes=2**34,
    memory_source="measured",
    memory_planned_bytes=5,
    table=3,
    workers=1,
    address="http://127.0.0.1:9000",
    models=(MODEL,),
    replicas=(REPLICA,),
)


@dataclass
class Daemon:
    control: FakeControl
    store: MemoryStore
    socket: Path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(FakeControl(STATUS), MemoryStore(), tmp_path / "api.sock")
    with fake_daemon(daemon.control, daemon.store, daemon.socket):
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[ControlClient]:
    with ControlClient(daemon.socket) as client:
        yield client


def test_every_value_arrives_as_it_was_sent(client: ControlClient, daemon: Daemon) -> None:
    daemon.control.lines[MODEL.name] = [LogLines("r-1", ("naïve", "\x1b[31mred"))]
    assert client.status() == STATUS
    assert client.logs("gpt", 5) == daemon.control.lines[MODEL.name]
    explained = client.why("gpt")
    assert (explained.model, explained.replicas, explained.events) == (MODEL, (REPLICA,), ())
    assert client.config() == "models: {}\n"


def test_wishes_are_kept(client: ControlClient, daemon: Daemon) -> None:
    client.load(MODEL.name)
    assert daemon.store.wishes() == {ModelName(MODEL.name): Wish.LOADED}
    client.unload(MODEL.name)
    assert daemon.store.wishes() == {ModelName(MODEL.name): Wish.UNLOADED}


def test_keys_are_made_listed_and_revoked(client: ControlClient) -> None:
    made = client.create_key("a/b ü")
    assert made.key not in repr(made)
    (listed,) = client.keys()
    assert (listed.id, listed.name, listed.shown) == (made.id, "a/b ü", made.key[:7])
    assert client.revoke_key("a/b ü").revoked is not None


def test_a_key_is_made_with_what_it_may_use(client: ControlClient) -> None:
    client.create_key("team", quota=Quota(tokens_per_minute=9), models=["mine"])
    (listed,) = client.keys()
    assert (listed.tokens_per_minute, listed.requests_per_minute, listed.models) == (9, None, ("mine",))
    with pytest.raises(ControlError, match="requests_per_minute"):
        client.create_key("none", quota=Quota(requests_per_minute=0))
    with pytest.raises(ControlError, match="models"):
        client.create_key("none", models=[])


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "a?b", "a#b", "a%2Fb", "//a", "ä b"])
def test_a_name_reaches_the_daemon_unchanged(client: ControlClient, daemon: Daemon, name: str) -> None:
    daemon.control.show(replace(MODEL, name=name))
    assert client.why(name).model.name == name


def test_what_the_daemon_refuses_is_told_in_its_words(client: ControlClient) -> None:
    with pytest.raises(ControlError, match=r"cannot find model 'gtp': .*did you mean 'gpt'") as caught:
        client.load("gtp")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_without_a_socket_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"not running: nothing answers at .*api\.sock"):
        ControlClient(tmp_path / "api.sock").status()


def test_a_socket_that_a_dead_daemon_left_is_not_a_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))
    with pytest.raises(NotRunning):
        ControlClient(tmp_path / "api.sock").status()


def test_a_socket_that_cannot_be_opened_does_not_mean_that_nothing_runs(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.symlink_to(path)
    with pytest.raises(ControlError, match=r"cannot open modelgrid's socket .*api\.sock: Too many levels of symbolic"):
        ControlClient(path).status()


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        yield tmp_path / "api.sock"


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(mute: Path) -> None:
    with pytest.raises(ControlError, match=r"no answer in 0\.05 s"):
        ControlClient(mute, timeout_s=0.05).status()


def test_the_socket_is_for_its_owner_only_and_goes_with_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with fake_daemon(FakeControl(STATUS), MemoryStore(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_dead_socket_is_replaced_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with fake_daemon(FakeControl(STATUS), MemoryStore(), path), ControlClient(path) as client:
        assert client.status() == STATUS


def test_keys_are_rotated_grouped_and_what_was_done_is_told(client: ControlClient, daemon: Daemon) -> None:
    assert client.set_group("a/b", Quota(concurrency=2)).concurrency == 2
    ends = time.time() + 100
    made = client.create_key("..", operations=["chat"], scopes=[Scope.CALLER, Scope.METRICS], group="a/b", expires=ends)
    (shown,) = client.keys()
    assert (shown.operations, shown.scopes, shown.group, shown.expires) == (
        ("chat",),
        ("caller", "metrics"),
        "a/b",
        ends,
    )
    rotated = client.rotate_key("..", grace_s=5, expires=ends + 1)
    assert (rotated.id, rotated.key == made.key) == (made.id, False)
    assert client.keys()[0].expires == ends + 1
    assert [group.keys for group in client.groups()] == [("..",)]
    client.revoke_key("..")
    client.remove_group("a/b")
    assert client.groups() == []
    whats = ["group.set", "key.create", "key.rotate", "key.revoke", "group.remove"]
    assert [deed.what for deed in client.audit()] == whats
    assert [deed.what for deed in client.audit(limit=1, since_s=60)] == ["group.remove"]
    assert daemon.store.audit(1)[0].who == "owner"

"""When `serve` can't serve it says why, who is in the way, and what to do; and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sqlite3
import tempfile
from collections import deque
from collections.abc import Iterator

import pytest

from modelgrid.config import Config, GatewayConfig
from modelgrid.config.paths import Paths, find_paths
from modelgrid.daemon.children import Death
from modelgrid.daemon.supervisor import Plan, ServeError, running_pid, supervise
from modelgrid.store import StoreError, open_store


@pytest.fixture
def paths() -> Iterator[Paths]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
        yield find_paths({"MODELGRID_HOME": folder})


async def never(stopping: asyncio.Event, deaths: deque[Death]) -> None:
    raise AssertionError("it serves")


def refused(paths: Paths, *, host: str = "127.0.0.1", port: int) -> str:
    config = Config(gateway=GatewayConfig(host=host, port=port))
    with pytest.raises(ServeError) as caught:
        supervise(paths, Plan(config, None, {}, hub=False), never)
    assert running_pid(paths) is None
    return str(caught.value)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_told_with_who_has_it(paths: Paths, taken: int) -> None:
    why = refused(paths, port=taken)
    assert why.startswith(f"cannot listen on 127.0.0.1:{taken}: the port is in use by process {os.getpid()} (")
    other = taken + 1 if taken < 65535 else 9000
    assert why.endswith(f"(try: modelgrid serve --port {other})")


def test_an_address_of_another_machine_is_told(paths: Paths) -> None:
    open_store_with_key(paths)
    why = refused(paths, host="192.0.2.1", port=9000)
    assert why.startswith("cannot listen on 192.0.2.1:9000: ")
    assert "gateway.host is an address of this machine" in why


def test_without_a_key_only_this_machine_is_served(paths: Paths) -> None:
    assert refused(paths, host="0.0.0.0", port=0) == (
        "cannot serve on 0.0.0.0: without a key anybody there could use it "
        "(make one: modelgrid key create NAME; or serve on gateway.host 127.0.0.1)"
    )


def test_a_revoked_key_is_no_key(paths: Paths) -> None:
    open_store_with_key(paths, revoked=True)
    assert "without a key" in refused(paths, host="0.0.0.0", port=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_needs_no_key(paths: Paths, taken: int, host: str) -> None:
    assert "port is in use" in refused(paths, host=host, port=taken)


def test_a_store_that_cannot_tell_what_was_is_refused(paths: Paths, taken: int) -> None:
    """Before anything is started: a controller would die of it again and again."""
    paths.make()
    open_store(paths.store).close()
    with contextlib.closing(sqlite3.connect(paths.store)) as store:
        store.execute("INSERT INTO replicas VALUES ('a-1', '{}')")
        store.commit()
    with pytest.raises(StoreError, match="cannot read"):
        supervise(paths, Plan(Config(gateway=GatewayConfig(port=taken)), None, {}, hub=False), never)


def test_a_second_serve_of_the_same_home_is_refused(paths: Paths) -> None:
    paths.make()
    with (paths.run / "daemon.lock").open("w") as held:
        held.write("4711")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert running_pid(paths) == 4711
        with pytest.raises(ServeError) as caught:
            supervise(paths, Plan(Config(), None, {}, hub=False), never)
        assert running_pid(paths) == 4711
    assert str(caught.value) == (
        "cannot serve: modelgrid runs already, as process 4711 "
        "(see: modelgrid status; end it: modelgrid stop; or set another MODELGRID_HOME)"
    )


def test_a_lock_that_nobody_holds_is_nobody_s(paths: Paths) -> None:
    assert running_pid(paths) is None
    paths.make()
    (paths.run / "daemon.lock").write_text("4711")
    assert running_pid(paths) is None


def open_store_with_key(paths: Paths, *, revoked: bool = False) -> None:
    paths.make()
    store = open_store(paths.store)
    store.create_key("me", 1.0)
    if revoked:
        store.revoke_key("me", 2.0)
    store.close()

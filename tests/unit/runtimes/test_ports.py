"""Ports on loopback."""

from __future__ import annotations

import socket

from modelgrid.runtimes.ports import Ports, is_free


def test_a_port_is_not_handed_out_twice() -> None:
    ports = Ports()
    chosen = [ports.choose(()) for _ in range(300)]
    assert len(set(chosen)) == 300


def test_ports_to_avoid_are_avoided() -> None:
    usual = {Ports().choose(()) for _ in range(100)}
    assert Ports().choose(usual) not in usual


def test_a_port_that_a_server_listens_on_is_not_free() -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as listener:
            listener.bind((host, 0))
            listener.listen()
            port = listener.getsockname()[1]
            assert not is_free(port)
        assert is_free(port)

"""What follows from where the gateway listens."""

from __future__ import annotations

import pytest

from modelgrid.config import GatewayConfig


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("localhost", "http://localhost:9000"),
        ("::1", "http://[::1]:9000"),
        ("::", "http://[::]:9000"),
    ],
)
def test_its_address_is_a_url(host: str, address: str) -> None:
    assert GatewayConfig(host=host).address == address


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_only_loopback_is_for_this_machines_own_users(host: str, is_loopback: bool) -> None:
    assert GatewayConfig(host=host).is_loopback is is_loopback

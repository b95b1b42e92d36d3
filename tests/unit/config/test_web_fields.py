"""What of the network can't be meant is refused when the configuration is checked."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from modelgrid.config import Config, ConfigError, CorsConfig, GatewayConfig, TlsConfig, load_text, show


def load(**gateway: Any) -> Config:
    return load_text(yaml.safe_dump({"gateway": gateway}), path=Path("modelgrid.yaml"), environ={})


def test_what_is_said_is_taken_as_it_is_meant() -> None:
    gateway = load(
        cors={"origins": ["https://App.example.com", "http://localhost:3000"], "headers": ["X-Mine"], "max_age": "1h"},
        trusted_proxies=["10.0.0.0/8", "::1", "192.0.2.7"],
        log={"requests": "errors", "format": "json"},
    ).gateway
    assert gateway.cors == CorsConfig(("https://app.example.com", "http://localhost:3000"), ("x-mine",), False, 3600.0)
    assert gateway.trusted_proxies == ("10.0.0.0/8", "::1/128", "192.0.2.7/32")
    assert (gateway.log_requests, gateway.log_format) == ("errors", "json")


def test_all_is_off_unless_it_is_asked_for() -> None:
    gateway = load().gateway
    assert (gateway.cors, gateway.tls, gateway.trusted_proxies, gateway.log_requests) == (None, None, (), "off")


def test_a_word_says_which_requests_are_logged() -> None:
    assert load(log="all").gateway.log_requests == "all"
    assert load(log="off").gateway.log_requests == "off"


@pytest.mark.parametrize(
    ("gateway", "why"),
    [
        ({"cors": {"origins": ["*"], "credentials": True}}, "lets pages of every site act as whoever looks at them"),
        ({"cors": {"origins": ["https://a.example", "*"], "credentials": True}}, "lets pages of every site"),
        ({"cors": {"origins": []}}, "origins"),
        ({"cors": {}}, "says no origins"),
        ({"cors": {"origins": ["app.example.com"]}}, "is not where pages come from"),
        ({"cors": {"origins": ["https://app.example.com/"]}}, "is not where pages come from"),
        ({"cors": {"origins": ["https://*.example.com"]}}, "is not where pages come from"),
        ({"cors": {"origins": ["null"]}}, "is not where pages come from"),
        ({"cors": {"origins": ["https://a.example\r\nSet-Cookie: a=b"]}}, "is not where pages come from"),
        ({"cors": {"origins": ["*"], "headers": ["x\r\ny"]}}, "can't name a header"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "write 10.0.0.0/8"),
        ({"trusted_proxies": ["proxy.example"]}, "is no network"),
        ({"log": "some"}, "is not one of"),
    ],
)
def test_what_cannot_be_meant_is_refused(gateway: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**gateway)
    assert why in str(refused.value)


def test_what_is_shown_loads_to_the_same() -> None:
    config = load(
        cors={"origins": ["https://a.example"], "headers": ["x-mine"], "credentials": True},
        tls={"certificate": "/certs/a.pem", "key": "/certs/a.key"},
        trusted_proxies=["10.0.0.0/8"],
        log="errors",
    )
    assert load_text(show(config), path=Path("modelgrid.yaml"), environ={}).gateway == config.gateway


def test_it_reaches_the_processes_of_the_daemon_as_it_is() -> None:
    gateway = GatewayConfig(
        cors=CorsConfig(("https://a.example",)), tls=TlsConfig("/a.pem", "/a.key"), trusted_proxies=("10.0.0.0/8",)
    )
    assert msgspec.convert(json.loads(json.dumps(asdict(gateway))), GatewayConfig) == gateway


def test_the_how_to_is_written_as_it_is_read() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/put-it-on-a-network.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    gateways = [load_text(block, path=Path("modelgrid.yaml"), environ={}).gateway for block in blocks]
    assert [gateway.host for gateway in gateways[:3]] == ["0.0.0.0", "0.0.0.0", "10.0.0.5"]
    assert gateways[1].tls == TlsConfig("/etc/modelgrid/fullchain.pem", "/etc/modelgrid/privkey.pem")
    assert gateways[2].trusted_proxies == ("10.0.0.0/24",)
    assert gateways[3].cors == CorsConfig(("https://app.example.com",), ("x-team",), max_age_s=3600.0)
    assert gateways[4].log_requests == "errors"

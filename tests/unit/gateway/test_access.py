"""Who may call."""

from __future__ import annotations

import hashlib

import pytest

from modelgrid.gateway.access import Access, without_credential
from modelgrid.gateway.ledger import Ledger
from modelgrid.spec import AccessKey

LEDGER = Ledger.alone()
KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-secret").hexdigest())
OTHER = AccessKey(id="2", name="bob", sha256="0" * 64)


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer mg-secret"},
        {b"authorization": b"bearer  mg-secret"},
        {b"x-api-key": b"mg-secret"},
        {b"api-key": b"mg-secret"},
        {b"authorization": b"Basic abc", b"x-api-key": b"mg-secret"},
        {b"sec-websocket-protocol": b"realtime, openai-insecure-api-key.mg-secret, openai-beta.realtime-v1"},
    ],
)
def test_a_key_opens_in_each_of_its_places(headers: dict[bytes, bytes]) -> None:
    found = Access((OTHER, KEY), LEDGER).find(headers, 0.0)
    assert found is not None
    assert found.name == "ann"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b"mg-secret"},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer mg-secre"},
        {b"authorization": b"Bearer " + KEY.sha256.encode()},
        {b"x-api-key": b""},
    ],
)
def test_anything_else_does_not(headers: dict[bytes, bytes]) -> None:
    assert Access((OTHER, KEY), LEDGER).find(headers, 0.0) is None


def test_without_keys_none_is_asked_for() -> None:
    assert Access((), LEDGER).is_open
    assert not Access((KEY,), LEDGER).is_open
    assert Access((), LEDGER).find({b"x-api-key": b"mg-secret"}, 0.0) is None


def test_a_key_among_subprotocols_does_not_go_on() -> None:
    offered = b"realtime, openai-insecure-api-key.mg-secret,openai-beta.realtime-v1"
    assert without_credential(offered) == b"realtime, openai-beta.realtime-v1"


def test_a_key_that_is_for_some_models_opens_no_other() -> None:
    access = Access((AccessKey(id="1", name="ann", sha256=KEY.sha256, models=("a",)),), LEDGER)
    found = access.find({b"x-api-key": b"mg-secret"}, 0.0)
    assert found is not None
    assert found.may_use("a")
    assert not found.may_use("b")

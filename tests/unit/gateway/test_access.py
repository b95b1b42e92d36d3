"""Who may call."""

from __future__ import annotations

import hashlib

import pytest

from modelgrid.gateway.access import Access
from modelgrid.spec import AccessKey

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
    ],
)
def test_a_key_opens_in_each_of_its_places(headers: dict[bytes, bytes]) -> None:
    assert Access((OTHER, KEY)).is_known(headers)


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
    assert not Access((OTHER, KEY)).is_known(headers)


def test_without_keys_none_is_asked_for() -> None:
    assert Access(()).is_open
    assert not Access((KEY,)).is_open
    assert not Access(()).is_known({b"x-api-key": b"mg-secret"})

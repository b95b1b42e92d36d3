"""Who may call."""

from __future__ import annotations

import hashlib

import pytest

from modelgrid.gateway.access import Access
from modelgrid.spec import AccessKey

KEY = AccessKey(id="1", name="ann", sha256=hashlib.sha256(b"mg-secret").hexdigest())


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
    assert Access((KEY,)).find(headers) == KEY


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
    assert Access((KEY,)).find(headers) is None


def test_without_keys_none_is_asked_for() -> None:
    assert Access(()).is_open
    assert not Access((KEY,)).is_open

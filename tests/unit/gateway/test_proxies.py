"""A caller's address is what those say whom we trust, as far back as each was told by another of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.gateway.proxies import Proxies

PROXY, INNER, CALLER = "10.0.0.1", "10.0.0.2", "203.0.113.7"
TRUSTED = Proxies(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"])


def said(value: str, name: str = "x-forwarded-for") -> dict[bytes, bytes]:
    return {name.encode(): value.encode("latin-1")}


@pytest.mark.parametrize(
    ("chain", "caller"),
    [
        (CALLER, CALLER),
        (f"{CALLER}, {INNER}", CALLER),
        (f"6.6.6.6, {CALLER}, {INNER}", CALLER),  # what stands to the left of it was the caller's to write
        (f"{INNER}, {CALLER}", CALLER),
        (f"{CALLER}:4711", CALLER),
        ("[2001:db9::5]:4711, [2001:db8::1]", "2001:db9::5"),
        ("::ffff:203.0.113.7", CALLER),
        (f"{INNER}, 10.9.9.9", INNER),  # it comes from within
        ("unknown", PROXY),
        (f"unknown, {INNER}", INNER),
        ("", PROXY),
        (", ,", PROXY),
        ("203.0.113.7 extra", PROXY),
        ("fe80::1%eth0", PROXY),
        ("1.2.3.4\x00", PROXY),
    ],
)
def test_the_rightmost_that_is_not_trusted_is_the_caller(chain: str, caller: str) -> None:
    assert TRUSTED.caller(PROXY, said(chain)) == caller


@pytest.mark.parametrize(
    ("header", "caller"),
    [
        (f"for={CALLER};proto=https;by=10.0.0.1", CALLER),
        (f'For="{CALLER}:4711"', CALLER),
        ('for="[2001:db9::5]:4711", for=10.0.0.2', "2001:db9::5"),
        (f"for=6.6.6.6, for={CALLER}, for={INNER}", CALLER),
        ("for=_hidden", PROXY),
        (f"proto=https, for={INNER}", INNER),
        ('for="a,b;c", for=10.0.0.2', INNER),
        (f'for={CALLER};x="', CALLER),
    ],
)
def test_so_it_is_with_the_header_of_rfc_7239(header: str, caller: str) -> None:
    assert TRUSTED.caller(PROXY, said(header, "forwarded")) == caller


def test_who_is_not_trusted_says_it_in_vain() -> None:
    for header in (said("127.0.0.1"), said("for=127.0.0.1", "forwarded"), said(PROXY)):
        assert TRUSTED.caller(CALLER, header) == CALLER
        assert Proxies([]).caller(PROXY, header) == PROXY


def test_where_both_headers_are_sent_and_differ_neither_counts() -> None:
    """A proxy writes one of them; the other may have been its caller's."""
    both = {**said(CALLER), **said("for=6.6.6.6", "forwarded")}
    assert TRUSTED.caller(PROXY, both) == PROXY
    assert TRUSTED.caller(PROXY, {**said(CALLER), **said(f"for={CALLER}", "forwarded")}) == CALLER


def test_a_caller_by_a_unix_socket_has_no_address() -> None:
    assert TRUSTED.caller("", said(CALLER)) == ""


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
def test_whatever_is_said_the_answer_is_an_address(text: str) -> None:
    for name in ("x-forwarded-for", "forwarded"):
        caller = TRUSTED.caller(PROXY, said(text, name))
        assert set(caller) <= set("0123456789abcdef.:")

"""Where a caller is, when proxies stand in front: what they say counts as far back as each was told by one we trust.

The chain is read from its end. What the connection's other end says of who spoke to it counts if that end is trusted;
what that one says, if it is trusted too; and so on. The first that isn't is the caller. Everything further to the left
was written by the caller, or may have been.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOPS: Final = 32  # that are read of a chain
_WITH_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::\d{1,5})?")


class Proxies:
    """The networks that are trusted."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)

    def caller(self, peer: str, headers: Mapping[bytes, bytes]) -> str:
        """The address of who sent a request with these headers, by a connection from `peer`."""
        if not self._networks:
            return peer
        near = _address(peer)
        if near is None or not self._trusts(near):
            return peer
        chains = [
            read(headers[name].decode("latin-1"))
            for name, read in ((b"x-forwarded-for", _plain_chain), (b"forwarded", _forwarded_chain))
            if name in headers
        ]
        found = {self._walk(near, chain) for chain in chains}
        return str(found.pop()) if len(found) == 1 else str(near)  # a proxy writes one of the two: which can't be told

    def _walk(self, near: _Address, chain: list[str]) -> _Address:
        for written in reversed(chain[-_HOPS:]):
            told = _address(written)
            if told is None:  # hidden, or nonsense: whoever said so is as far as we see
                return near
            near = told
            if not self._trusts(near):
                break
        return near

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _address(written: str) -> _Address | None:
    """With or without a port; what is IPv4 within IPv6 is IPv4."""
    match = _WITH_PORT.fullmatch(written)
    bare = (match[1] or match[2]) if match is not None else written
    if "%" in bare:  # a zone, whose name may be anything
        return None
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _plain_chain(header: str) -> list[str]:
    return [part.strip() for part in header.split(",")]


def _forwarded_chain(header: str) -> list[str]:
    """RFC 7239: ``for=192.0.2.60;proto=http, for="[2001:db8::1]:4711"``. One that says no `for` hides it."""
    chain = []
    for element in _split(header, ","):
        hop = ""
        for pair in _split(element, ";"):
            name, _, value = pair.partition("=")
            if name.strip().lower() == "for":
                hop = value.strip().strip('"')
        chain.append(hop)
    return chain


def _split(text: str, separator: str) -> list[str]:
    """At separators outside of quotes."""
    parts, part, is_quoted = [], "", False
    for character in text:
        if character == '"':
            is_quoted = not is_quoted
        if character == separator and not is_quoted:
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part]

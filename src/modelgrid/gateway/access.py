"""Who may call: keys are known by their SHA-256 only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.quota import Gate
from modelgrid.spec import AccessKey

_HEADERS = (b"x-api-key", b"api-key")
_IN_PROTOCOL = b"openai-insecure-api-key."  # how a browser sends a key with a WebSocket, which has no other header


class Caller:
    """Whoever holds one key."""

    __slots__ = ("gate", "id", "models", "name")

    def __init__(self, key: AccessKey, gate: Gate | None) -> None:
        self.id = key.id
        self.name = key.name
        self.gate = gate
        self.models = None if key.models is None else frozenset(key.models)

    def may_use(self, model: str) -> bool:
        """A model, by its own name."""
        return self.models is None or model in self.models


class Access:
    """The keys of one routing table. Those of the table before keep what was counted of them."""

    def __init__(self, keys: Iterable[AccessKey], ledger: Ledger, before: Access | None = None) -> None:
        old: dict[str, Caller] = {} if before is None else before._callers
        self._callers: dict[str, Caller] = {
            key.sha256.lower(): _caller(key, ledger, old.get(key.sha256.lower())) for key in keys
        }

    @property
    def is_open(self) -> bool:
        """No key is asked for."""
        return not self._callers

    def find(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Whose key a request carries. How long the look-up takes depends on the hash alone: it tells nothing of a
        key."""
        token = credential(headers)
        return None if token is None else self._callers.get(hashlib.sha256(token).hexdigest())


def credential(headers: Mapping[bytes, bytes]) -> bytes | None:
    """What a caller sent as its key."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            return token.strip()
    for name in _HEADERS:
        if name in headers:
            return headers[name].strip()
    for protocol in headers.get(b"sec-websocket-protocol", b"").split(b","):
        if protocol.strip().startswith(_IN_PROTOCOL):
            return protocol.strip().removeprefix(_IN_PROTOCOL)
    return None


def without_credential(protocols: bytes) -> bytes:
    """The subprotocols that a WebSocket offers, less that which is the caller's key."""
    offered = [protocol.strip() for protocol in protocols.split(b",")]
    return b", ".join(protocol for protocol in offered if not protocol.startswith(_IN_PROTOCOL))


def _caller(key: AccessKey, ledger: Ledger, before: Caller | None) -> Caller:
    if key.quota is None:
        return Caller(key, None)
    if before is not None and before.gate is not None:
        return Caller(key, before.gate.again(key.slot, key.quota))
    return Caller(key, Gate(ledger, key.slot, key.quota))

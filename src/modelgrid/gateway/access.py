"""Who may call: keys are known by their SHA-256 only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.quota import Gate
from modelgrid.spec import AccessKey, KeyGroup, Quota

_HEADERS = (b"x-api-key", b"api-key")
_IN_PROTOCOL = b"openai-insecure-api-key."  # how a browser sends a key with a WebSocket, which has no other header
_NO_LIMITS = Quota()


class Caller:
    """Whoever holds one key."""

    __slots__ = ("gate", "group", "group_gate", "id", "models", "name", "operations", "scopes")

    def __init__(self, key: AccessKey, gate: Gate | None, group_gate: Gate | None = None) -> None:
        self.id = key.id
        self.name = key.name
        self.gate = gate  # there is one wherever there is one of its group
        self.group = key.group
        self.group_gate = group_gate
        self.models = None if key.models is None else frozenset(key.models)
        self.operations = None if key.operations is None else frozenset(key.operations)
        self.scopes = frozenset(key.scopes)

    def may_use(self, model: str) -> bool:
        """A model, by its own name."""
        return self.models is None or model in self.models


class Access:
    """The keys of one routing table. Those of the table before keep what was counted of them.

    One that has expired stays: it opens nothing, but where it is, a key is asked for. Times are seconds since the
    epoch, as the controller's are.
    """

    def __init__(
        self,
        keys: Iterable[AccessKey],
        ledger: Ledger,
        before: Access | None = None,
        groups: Iterable[KeyGroup] = (),
    ) -> None:
        old: dict[str, Caller] = {} if before is None else before._callers
        old_groups: dict[str, Gate] = {} if before is None else before._groups
        self._callers: dict[str, Caller] = {}  # by the key's id, which it keeps when it is rotated
        self._holders: dict[str, Caller] = {}  # by the hash of what they send
        self._until: dict[str, float] = {}  # by that hash, where it ends
        self._groups: dict[str, Gate] = {
            group.name: _group_gate(group, group.quota, ledger, old_groups.get(group.name))
            for group in groups
            if group.quota is not None and group.quota != _NO_LIMITS
        }
        for key in keys:
            group_gate = None if key.group is None else self._groups.get(key.group)
            self._take(key, _caller(key, ledger, old.get(key.id), group_gate))

    @property
    def is_open(self) -> bool:
        """No key is asked for."""
        return not self._holders

    def find(self, headers: Mapping[bytes, bytes], now: float) -> Caller | None:
        """Whose key a request carries, if it opens now. How long the look-up takes depends on the hash alone: it tells
        nothing of a key."""
        token = credential(headers)
        if token is None:
            return None
        digest = hashlib.sha256(token).hexdigest()
        caller = self._holders.get(digest)
        if caller is None or (self._until and self._until.get(digest, math.inf) <= now):
            return None
        return caller

    def holder(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """The same of a key that may be over, for who is turned away with it."""
        token = credential(headers)
        return None if token is None else self._holders.get(hashlib.sha256(token).hexdigest())

    def next_end(self, now: float) -> float | None:
        """When the next key or former secret ends."""
        return min((until for until in self._until.values() if until > now), default=None)

    def _take(self, key: AccessKey, caller: Caller) -> None:
        ends = math.inf if key.expires is None else key.expires
        self._callers[key.id] = caller
        for former in key.former:
            self._hold(former.sha256.lower(), caller, min(former.until, ends))
        self._hold(key.sha256.lower(), caller, ends)

    def _hold(self, digest: str, caller: Caller, until: float) -> None:
        self._holders[digest] = caller
        if until < math.inf:
            self._until[digest] = until


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


def _caller(key: AccessKey, ledger: Ledger, before: Caller | None, group_gate: Gate | None) -> Caller:
    if key.quota is None and group_gate is None:
        return Caller(key, None)
    quota = key.quota or _NO_LIMITS
    if before is not None and before.gate is not None:
        return Caller(key, before.gate.again(key.slot, quota), group_gate)
    return Caller(key, Gate(ledger, key.slot, quota), group_gate)


def _group_gate(group: KeyGroup, quota: Quota, ledger: Ledger, before: Gate | None) -> Gate:
    return Gate(ledger, group.slot, quota) if before is None else before.again(group.slot, quota)

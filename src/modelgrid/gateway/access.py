"""Who may call: keys are known by their SHA-256 only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from modelgrid.spec import AccessKey

_HEADERS = (b"x-api-key", b"api-key")


class Access:
    """The keys of one routing table."""

    def __init__(self, keys: Iterable[AccessKey]) -> None:
        self._hashes = frozenset(key.sha256.lower() for key in keys)

    @property
    def is_open(self) -> bool:
        """No key is asked for."""
        return not self._hashes

    def is_known(self, headers: Mapping[bytes, bytes]) -> bool:
        """A request carries one of the keys. How long the look-up takes depends on the hash alone: it tells nothing
        of a key."""
        token = credential(headers)
        return token is not None and hashlib.sha256(token).hexdigest() in self._hashes


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
    return None

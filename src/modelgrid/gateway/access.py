"""Who may call: keys are known by their SHA-256 only."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from modelgrid.spec import AccessKey

_HEADERS = (b"x-api-key", b"api-key")


class Access:
    """The keys of one routing table."""

    def __init__(self, keys: tuple[AccessKey, ...]) -> None:
        self._keys = {key.sha256.lower(): key for key in keys}

    @property
    def is_open(self) -> bool:
        """No key is asked for."""
        return not self._keys

    def find(self, headers: Mapping[bytes, bytes]) -> AccessKey | None:
        """The key that a request carries, if it is one of ours."""
        token = credential(headers)
        if token is None:
            return None
        digest = hashlib.sha256(token).hexdigest()
        key = self._keys.get(digest)
        # The look-up's time depends on the digest only, which tells nothing of a key; the comparison is even.
        return key if key is not None and hmac.compare_digest(key.sha256.lower(), digest) else None


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

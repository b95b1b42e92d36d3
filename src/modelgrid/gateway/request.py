"""A caller's request, as the gateway needs it; and which headers end here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key", b"api-key"))
# An engine has no business with who the caller's browser is, nor with the page that it shows.
NOT_FORWARDED: Final = (
    HOP_BY_HOP | CREDENTIALS | {b"host", b"content-length", b"expect", b"cookie", b"origin", b"referer"}
)
READ: Final = CREDENTIALS | {
    b"connection",
    b"content-encoding",
    b"content-length",
    b"expect",
    b"host",
    b"origin",
    b"transfer-encoding",
    b"x-request-id",
}

Line = tuple[bytes, bytes]  # a header's name in lower case, and the whole line with its end


class Request(msgspec.Struct, frozen=True):
    """One request, whole. Its `read` headers hold the caller's credential, so a request is never logged."""

    id: str
    method: str
    path: str
    query: bytes  # with its question mark, or empty
    is_http10: bool
    keep_alive: bool
    read: Mapping[bytes, bytes]  # the headers that the gateway looks at
    forward: bytes  # the headers that go on, as lines
    body: bytes = b""

    def __repr__(self) -> str:
        return f"Request({self.id} {self.method} {self.path})"


def note(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Keep a header; one that comes again continues the first, as a list."""
    headers[name] = headers[name] + b", " + value if name in headers else value


def forwarded(lines: Iterable[Line], connection: bytes | None) -> bytes:
    """The lines that go on, less those that the Connection header names as meant for this hop."""
    if connection is None or connection.lower() in (b"keep-alive", b"close"):
        return b"".join([line for _, line in lines])
    named = {token.strip().lower() for token in connection.split(b",")}
    return b"".join([line for name, line in lines if name not in named])


def split_target(target: bytes) -> tuple[str, bytes]:
    """Path and query of a request's target, in origin or absolute form."""
    if not target.startswith((b"/", b"*")):
        _, _, rest = target.partition(b"://")
        slash = rest.find(b"/")
        target = rest[slash:] if slash >= 0 else b"/"
    path, mark, query = target.partition(b"?")
    return path.decode("latin-1"), mark + query.partition(b"#")[0]

"""A caller's request, as the gateway needs it; and which headers end here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from modelgrid.gateway.access import Caller
    from modelgrid.gateway.answers import Answer
    from modelgrid.gateway.endpoints import Found
    from modelgrid.gateway.upload import Upload
    from modelgrid.gateway.wishes import Wishes

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key", b"api-key"))
# What a proxy in front says of a caller, and whoever comes by none may say of itself.
OF_PROXIES: Final = frozenset(
    b"forwarded x-real-ip x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port".split()
)
# An engine has no business with who the caller's browser is, nor with the page that it shows. It would believe what is
# said of a caller's address, since it comes from this machine.
NOT_FORWARDED: Final = (
    HOP_BY_HOP | CREDENTIALS | OF_PROXIES | {b"host", b"content-length", b"expect", b"cookie", b"origin", b"referer"}
)

_NONE: Final[Mapping[bytes, bytes]] = {}

Line = tuple[bytes, bytes]  # a header's name in lower case, and the whole line with its end


class Head:
    """What a request's head says. Requests that repeat it share it, so it has nothing of one of them: not its id, not
    its body's length. Its `read` headers hold the caller's credential, so a head is never logged."""

    __slots__ = (
        "access",
        "caller",
        "forward",
        "found",
        "is_http10",
        "is_kept",
        "is_plain",
        "method",
        "path",
        "query",
        "read",
        "sent_id",
        "web",
        "wishes",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes = b"",
        read: Mapping[bytes, bytes] = _NONE,
        forward: bytes = b"",
        *,
        is_http10: bool = False,
        is_kept: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query  # with its question mark, or empty
        self.read = read  # the headers that the gateway looks at
        self.forward = forward  # the headers that go on, as lines
        self.is_http10 = is_http10
        self.is_kept = is_kept  # the connection may be used again
        self.is_plain = is_kept and not is_http10 and method != "HEAD"  # nothing has to be said of the connection
        self.sent_id = read.get(b"x-request-id", b"")
        self.found: Found | Answer | None = None  # what it asks for, or why it won't be answered
        self.access: object = None  # the table whose keys said so
        self.caller: Caller | None = None  # who holds the key that was sent
        self.wishes: Wishes | None = None  # what it says of waiting
        self.web = b""  # lines of every answer to it, for the browser that sent it

    def __repr__(self) -> str:
        return f"Head({self.method} {self.path})"


class Record:
    """What became of a request, for the log. None is made where nobody reads it."""

    __slots__ = (
        "cached",
        "code",
        "duration_s",
        "first_byte_s",
        "input",
        "model",
        "operation",
        "output",
        "replica",
        "retries",
        "status",
    )

    def __init__(
        self,
        status: int,
        operation: str = "",
        model: str = "",
        *,
        duration_s: float = 0.0,
        first_byte_s: float = 0.0,
        input: int = 0,
        output: int = 0,
        cached: int = 0,
        replica: str = "",
        retries: int = 0,
    ) -> None:
        self.status = status
        self.operation = operation
        self.model = model
        self.duration_s = duration_s
        self.first_byte_s = first_byte_s  # 0 for what is no stream
        self.input = input
        self.output = output
        self.cached = cached
        self.replica = replica  # that answered, or was lost last
        self.retries = retries
        self.code = ""  # an error's; also where the answer began well and was cut off


class Request:
    """One request."""

    __slots__ = ("body", "head", "id", "record", "upload")

    def __init__(
        self,
        head: Head,
        id: bytes,
        body: bytes = b"",
        upload: Upload | None = None,
    ) -> None:
        self.head = head
        self.id = id
        self.body = body
        self.upload = upload  # a body that is relayed while it comes
        self.record: Record | None = None  # what became of it, once it has ended and where that is logged

    def __repr__(self) -> str:
        return f"Request({self.id!r} {self.head.method} {self.head.path})"


def note(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Keep a header; one that comes again continues the first, as a list."""
    headers[name] = headers[name] + b", " + value if name in headers else value


def forwarded(lines: Iterable[Line], connection: bytes | None) -> bytes:
    """The lines that go on, less those that the Connection header names as meant for this hop."""
    if connection is None or connection.lower() in (b"keep-alive", b"close"):
        return b"".join([line for _, line in lines])
    named = {token.strip().lower() for token in connection.split(b",")}
    return b"".join([line for name, line in lines if name not in named])


def split_target(target: bytes) -> tuple[bytes | None, str, bytes]:
    """Authority (of the absolute form only), path and query of a request's target."""
    authority = None
    if not target.startswith((b"/", b"*")):
        absolute = _ABSOLUTE.fullmatch(target)
        assert absolute is not None  # it matches anything
        authority, target = absolute.groups()
        target = target if target.startswith(b"/") else b"/" + target
    path, mark, query = target.partition(b"?")
    return authority, path.decode("latin-1"), mark + query.partition(b"#")[0]


_ABSOLUTE: Final = re.compile(rb"(?:.*?://)?([^/?#]*)(.*)", re.DOTALL)

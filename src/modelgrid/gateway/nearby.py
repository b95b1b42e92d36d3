"""Whether a request comes from a program of this machine, as far as its headers tell. Pure.

A socket on loopback keeps other machines out, but not the pages of other sites in a browser on this one. Such a page
can send a request here, and then its Origin is the site's; or it can have its site's name lead here after it was
loaded (DNS rebinding), and then the Host is that name. A browser lets no page set either header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Final

OURS: Final = b"x-modelgrid"  # a header that no page can send unasked
_OF_PROXIES: Final = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
_HOST: Final = rb"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d*)?"
_is_near_host: Final = re.compile(_HOST, re.IGNORECASE).fullmatch
_is_near_origin: Final = re.compile(rb"https?://" + _HOST, re.IGNORECASE).fullmatch


def why_not_nearby(headers: Mapping[bytes, bytes], *, is_http10: bool, pages: Set[bytes] = frozenset()) -> str | None:
    """What speaks against it, as the end of a sentence on the request; None where nothing does. `pages` are origins
    that may come although they are of elsewhere, since the configuration names them."""
    host = headers.get(b"host")
    if host is None:
        if not is_http10:
            return "it has no Host"
    elif not _is_near_host(host):
        return f"its Host is {_shown(host)}"
    origin = headers.get(b"origin")
    if origin is not None and not _is_near_origin(origin) and origin.lower() not in pages:
        return f"its Origin is {_shown(origin)}"
    return None


def why_not_ours(headers: Mapping[bytes, bytes], *, changes: bool) -> str | None:
    """What speaks against letting a request, which is nearby, use the control API without a key; as above.

    Here not even other pages of this machine may come, and nothing that went through a proxy, of which nobody knows
    for whom it asks. A page can send what changes something without being asked first; but not as JSON, nor with a
    header of its own.
    """
    for name in _OF_PROXIES:
        if name in headers:
            return f"it has come by a proxy: it has {name.decode()}"
    origin = headers.get(b"origin")
    if origin is not None and origin.lower().partition(b"://")[2] != headers.get(b"host", b"").lower():
        return f"its Origin is {_shown(origin)}"
    site = headers.get(b"sec-fetch-site", b"none")
    if site.lower() not in (b"none", b"same-origin"):
        return f"its Sec-Fetch-Site is {_shown(site)}"
    if changes and OURS not in headers and not _is_json(headers.get(b"content-type", b"")):
        return f"it has neither JSON as its Content-Type nor the header {OURS.decode()}: 1"
    return None


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def _shown(value: bytes) -> str:
    return repr(value[:_SHOWN].decode("latin-1"))


_SHOWN: Final = 200  # bytes of a header that an error repeats

"""Which pages of other sites may call the gateway: what a browser is told, once a head or when it asks first.

A browser asks (a preflight) before it sends what no form could: a JSON body, a key. It sends no key with that, so none
is asked for; what it is told holds no more than the configuration and which paths there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelgrid.config import CorsConfig, TlsConfig
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.request import Head

# What OpenAI's and Anthropic's clients send from a browser, and modelgrid's own.
_HEADERS: Final = (
    *("accept", "authorization", "content-type", "api-key", "x-api-key", "x-request-id", "last-event-id"),
    *("openai-organization", "openai-project", "openai-beta", "idempotency-key", "x-session-id"),
    *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access", "traceparent", "tracestate"),
)
_FAMILIES: Final = ("x-stainless-", "x-modelgrid-")  # the first is what OpenAI's client says of itself
# What a page may read of an answer beside the little that it may read always.
_SHOWN: Final = (
    *("x-request-id", "retry-after", "retry-after-ms", "content-disposition", "openai-processing-ms"),
    *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    *("x-modelgrid-cache", "age"),
)
_METHOD: Final = b"access-control-request-method"
_ASKED_HEADERS: Final = b"access-control-request-headers"
_NAMED: Final = 64  # headers that one preflight may ask for


class Cors:
    """What is configured, as lines of answers."""

    def __init__(self, config: CorsConfig) -> None:
        self._any_page = "*" in config.origins
        self._pages = frozenset(origin.encode() for origin in config.origins)
        self._any_header = "*" in config.headers
        self._headers = frozenset((*_HEADERS, *config.headers))
        self._max_age = str(int(config.max_age_s))
        self._credentials = b"access-control-allow-credentials: true\r\n" if config.credentials else b""
        shown = ", ".join(_SHOWN) if config.credentials else "*"
        self._shown = b"access-control-expose-headers: %b\r\n" % shown.encode()
        self._varies = b"" if self._any_page else b"vary: origin\r\n"

    @property
    def named_pages(self) -> frozenset[bytes]:
        """The origins that are allowed by name."""
        return self._pages - {b"*"}

    def lines(self, headers: Mapping[bytes, bytes]) -> bytes:
        """What every answer to a request with these headers says, an error's too. Other pages are told nothing, but a
        cache is told that these would be."""
        origin = headers.get(b"origin")
        if origin is None or not self._lets(origin):
            return self._varies
        if self._any_page:
            return b"access-control-allow-origin: *\r\n%b" % self._shown
        return b"access-control-allow-origin: %b\r\n%b%b%b" % (origin, self._credentials, self._shown, self._varies)

    def is_preflight(self, head: Head) -> bool:
        """A browser asks whether a page may send something."""
        return head.method == "OPTIONS" and b"origin" in head.read and _METHOD in head.read

    def preflight(self, head: Head, methods: tuple[str, ...]) -> Answer:
        """What it is told of a path that takes `methods`. That its page may call at all stands in `lines`."""
        if not self._lets(head.read[b"origin"]):
            return Answer(status=204, body=b"")
        headers = (
            ("access-control-allow-methods", ", ".join(methods)),
            ("access-control-allow-headers", ", ".join(self._allowed(head.read.get(_ASKED_HEADERS, b"")))),
            ("access-control-max-age", self._max_age),
        )
        return Answer(status=204, body=b"", headers=headers)

    def _lets(self, origin: bytes) -> bool:
        return self._any_page or origin.lower() in self._pages

    def _allowed(self, asked: bytes) -> list[str]:
        """Of the headers that a page wants to send. They are names that we know, or are spelled out as names are."""
        names = [name.strip().lower() for name in asked.decode("latin-1").split(",", _NAMED)[:_NAMED]]
        return sorted({name for name in names if name.isascii() and self._takes(name)})

    def _takes(self, name: str) -> bool:
        if name in self._headers:
            return True
        return (self._any_header or name.startswith(_FAMILIES)) and name.replace("-", "").replace("_", "").isalnum()


def own_lines(tls: TlsConfig | None) -> bytes:
    """What browsers are told with answers that are the gateway's own: they are what they say they are, and a link in
    them tells nobody where it stood; and, where it is known that TLS works here, to come by it."""
    lines = b"x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n"
    if tls is not None and tls.hsts_s:
        lines += b"strict-transport-security: max-age=%d\r\n" % int(tls.hsts_s)
    return lines

"""TLS for callers: 1.2 and 1.3, HTTP/1.1, by two files that may be replaced while it serves."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from modelgrid.config import TlsConfig
from modelgrid.config.certificate import certificate_problem, expiry_warning, load_certificate

_LOOK_S: Final = 1.0  # between two looks whether the files have changed
_HANDSHAKE_S: Final = 10.0  # a caller has no connection before, and holds a descriptor
_SHUTDOWN_S: Final = 5.0  # for a caller to say that it has read the end

_log = structlog.get_logger()

_Stamp = tuple[int, int, int, int, int, int]


def accepting(context: ssl.SSLContext | None) -> dict[str, Any]:
    """How the loop is to take connections."""
    if context is None:
        return {}
    return {"ssl": context, "ssl_handshake_timeout": _HANDSHAKE_S, "ssl_shutdown_timeout": _SHUTDOWN_S}


class Certificate:
    """What callers are shown. Connections that are there keep what they were shown. Raises OSError, which ssl's errors
    are too, where it can't be read."""

    def __init__(self, files: TlsConfig) -> None:
        self._files = files
        self.context = _context()
        self._stamp = self._seen = self._look()
        load_certificate(self.context, files)
        self._warn()

    async def watch(self) -> None:
        """Take up the files when they change."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self.refresh()

    def refresh(self) -> None:
        """Take them up now, if they have changed and belong together. They are not replaced in one moment, so until
        they do what was taken up before holds."""
        stamp = self._look()
        if stamp in (self._stamp, None):
            return
        problem = certificate_problem(self._files)
        if problem is None:
            try:
                load_certificate(self.context, self._files)
            except (OSError, ValueError) as error:  # replaced between two looks: the next one sees it
                _log.warning("certificate.unread", why=str(error))
                return
            self._stamp = self._seen = stamp
            _log.info("certificate.taken_up", certificate=self._files.certificate)
            self._warn()
        elif stamp != self._seen:
            self._seen = stamp
            _log.error("certificate.refused", why=problem.why)

    def _look(self) -> _Stamp | None:
        try:
            one, other = os.stat(self._files.certificate), os.stat(self._files.key)  # noqa: PTH116  a name, not a Path
        except OSError:
            return None
        return one.st_mtime_ns, one.st_ino, one.st_size, other.st_mtime_ns, other.st_ino, other.st_size

    def _warn(self) -> None:
        warning = expiry_warning(self._files, datetime.now(UTC))
        if warning is not None:
            _log.warning("certificate.ends", why=warning)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context

"""What is wrong with the files that TLS is served by, told before anybody is refused for it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

from modelgrid.config.config import TlsConfig

_INTEGER, _EXPLICIT, _UTC_TIME = 0x02, 0xA0, 0x17  # tags of DER


@dataclass(frozen=True, slots=True)
class CertificateProblem:
    """Which of the two files, and what to do about it."""

    field: Literal["certificate", "key"]
    why: str


class _Encrypted(Exception):
    """The key asks for a password."""


def certificate_problem(tls: TlsConfig) -> CertificateProblem | None:
    """Why nobody could be served by these files; None where they are good."""
    for field, path in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            why = f"cannot read {path}: {error.strerror} (correct the path, or let this user read the file)"
            return CertificateProblem("key" if field == "key" else "certificate", why)
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)
    except _Encrypted:
        step = f"openssl pkey -in {tls.key} -out FILE writes one without, for this user's eyes only"
        return CertificateProblem("key", f"{tls.key} asks for a password, which nobody is here to type ({step})")
    except ssl.SSLError as error:
        return _explained(error, tls)
    return None


def load_certificate(context: ssl.SSLContext, tls: TlsConfig) -> None:
    """Make `context` serve by these files. Raises OSError, ssl.SSLError, or what says that the key is encrypted."""
    context.load_cert_chain(tls.certificate, tls.key, password=_nobody_types)


def expires(certificate: Path) -> datetime | None:
    """Until when the first certificate of a PEM file is valid; None where that can't be read."""
    try:
        text = certificate.read_text(encoding="ascii", errors="replace")
        first = text[text.index(_BEGIN) : text.index(_END) + len(_END)]
        return _not_after(ssl.PEM_cert_to_DER_cert(first))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def expiry_warning(tls: TlsConfig, now: datetime) -> str | None:
    """What to say of a certificate that is no longer valid, or won't be soon."""
    end = expires(Path(tls.certificate))
    if end is None or (end - now).days >= _SOON_DAYS:
        return None
    when = "expired" if end <= now else "expires"
    return f"the certificate {tls.certificate} {when} on {end:%Y-%m-%d %H:%M} UTC: renew it"


_SOON_DAYS = 14
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def _nobody_types() -> NoReturn:
    raise _Encrypted


def _explained(error: ssl.SSLError, tls: TlsConfig) -> CertificateProblem:
    if error.reason == "KEY_VALUES_MISMATCH":
        return CertificateProblem(
            "key", f"{tls.key} is not the key of {tls.certificate}: name the two that belong together"
        )
    certificate = Path(tls.certificate).read_text(encoding="ascii", errors="replace")
    if _BEGIN not in certificate:
        return CertificateProblem("certificate", f"{tls.certificate} holds no certificate in PEM ({_BEGIN} …)")
    if "PRIVATE KEY-----" not in Path(tls.key).read_text(encoding="ascii", errors="replace"):
        return CertificateProblem("key", f"{tls.key} holds no private key in PEM (-----BEGIN PRIVATE KEY----- …)")
    why = (error.reason or str(error)).replace("_", " ").lower()
    return CertificateProblem("certificate", f"{tls.certificate} and {tls.key} can't be used: {why}")


def _not_after(der: bytes) -> datetime:
    """RFC 5280, 4.1: a certificate is a sequence that begins with the part that is signed; there follow one another a
    version, a serial number, an algorithm, an issuer, and from when to when it is valid."""
    _, certificate = next(_parts(der))
    _, signed = next(_parts(certificate))
    parts = [(tag, content) for tag, content in _parts(signed) if tag not in (_EXPLICIT, _INTEGER)]
    tag, written = list(_parts(parts[2][1]))[1]
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(written.decode("ascii"), form).replace(tzinfo=UTC)


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The values that follow one another: each a tag, a length and its content."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            more = size & 0x7F
            size = int.from_bytes(der[at : at + more], "big")
            at += more
        yield tag, der[at : at + size]
        at += size

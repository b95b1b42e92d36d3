"""Certificates for tests, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from modelgrid.config import TlsConfig


def make(
    folder: Path, name: str = "a", days: int = 90, password: str | None = None, host: str = "localhost"
) -> TlsConfig:
    """A certificate that signs itself, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsConfig(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", files.key)
    subject = ("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host},IP:127.0.0.1")
    openssl("req", "-x509", "-key", files.key, "-out", files.certificate, *subject, "-days", str(days))
    if password is not None:
        openssl("pkcs8", "-topk8", "-in", files.key, "-out", f"{files.key}.new", "-passout", f"pass:{password}")
        Path(f"{files.key}.new").replace(files.key)
    return files


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)

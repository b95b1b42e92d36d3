"""Pip's settings: where this machine gets its packages. uv doesn't read them, so we hand them on."""

from __future__ import annotations

import configparser
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_WHEEL = re.compile(
    r"torch-(?P<version>\d+(?:\.\d+)*)(?:\+[^-]+)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What pip would install from. Addresses may hold passwords: nothing of this is shown."""

    find_links: tuple[str, ...] = ()
    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    timeout_s: str | None = None

    def __repr__(self) -> str:
        return "PipSettings(…)"

    def for_uv(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The same in uv's variables; what `environ` says to uv already stays."""
        told = {
            "UV_FIND_LINKS": ",".join(self.find_links),
            "UV_DEFAULT_INDEX": self.index_url or "",
            "UV_EXTRA_INDEX_URL": " ".join(self.extra_index_urls),
            # pip takes the best version of all indexes; uv by itself stops at the first index that has any.
            "UV_INDEX_STRATEGY": "unsafe-best-match" if self.extra_index_urls else "",
            "UV_NO_INDEX": "1" if self.no_index else "",
            "UV_INSECURE_HOST": " ".join(self.trusted_hosts),
            "SSL_CERT_FILE": self.cert or "",
            "UV_HTTP_TIMEOUT": self.timeout_s or "",
        }
        if "UV_INDEX_URL" in environ:
            del told["UV_DEFAULT_INDEX"]
        return {name: value for name, value in told.items() if value and name not in environ}


def read_pip_settings(environ: Mapping[str, str] = os.environ, files: Iterable[Path] | None = None) -> PipSettings:
    """Pip's configuration files, the later over the earlier, and its variables over all of them."""
    found: dict[str, str] = {}
    for_install: dict[str, str] = {}
    for path in _files(environ) if files is None else files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip says so itself, to whoever uses it
        for section, into in (("global", found), ("install", for_install)):
            if parser.has_section(section):
                into |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    found |= for_install
    found |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("PIP_") and value
    }
    return PipSettings(
        find_links=tuple(filter(_exists, found.get("find-links", "").split())),
        index_url=found.get("index-url") or None,
        extra_index_urls=tuple(filter(_exists, found.get("extra-index-url", "").split())),
        no_index=found.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        trusted_hosts=tuple(found.get("trusted-host", "").split()),
        cert=found.get("cert") or None,
        timeout_s=found.get("timeout") or found.get("default-timeout") or None,
    )


def torch_wheel(settings: PipSettings | None = None) -> str | None:
    """The newest torch in pip's folders of wheels that this Python can use, as ``torch==2.13.0``. None without one."""
    settings = read_pip_settings() if settings is None else settings
    versions = [
        match["version"]
        for place in settings.find_links
        if (folder := _local(place)) is not None and folder.is_dir()
        for path in folder.glob("torch-*.whl")
        if (match := _WHEEL.fullmatch(path.name)) and _is_usable(match)
    ]
    if not versions:
        return None
    return "torch==" + max(versions, key=lambda version: [int(part) for part in version.split(".")])


def _is_usable(wheel: re.Match[str]) -> bool:
    ours = f"cp{sys.version_info.major}{sys.version_info.minor}"
    system = {"linux": "linux", "darwin": "macosx"}.get(sys.platform, sys.platform)
    return (
        bool({ours, "py3"} & set(wheel["python"].split(".")))
        and bool({ours, "abi3", "none"} & set(wheel["abi"].split(".")))
        and any(
            tag == "any" or (system in tag and tag.endswith(platform.machine())) for tag in wheel["platform"].split(".")
        )
    )


def _files(environ: Mapping[str, str]) -> list[Path]:
    """In pip's order."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    shared = [Path(folder) / "pip/pip.conf" for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    files = [*shared, Path("/etc/pip.conf"), home / ".pip/pip.conf", own, Path(sys.prefix) / "pip.conf"]
    return [*files, Path(named)] if named else files


def _exists(place: str) -> bool:
    """Places of the network are taken to be there; uv refuses to work with a local one that isn't."""
    local = _local(place)
    return local is None or local.exists()


def _local(place: str) -> Path | None:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(place)

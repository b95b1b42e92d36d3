"""The configuration's file, and a copy of it from when it was last good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelgrid.config import Config, ConfigError, load_config, load_text


@dataclass
class ConfigFile:
    """What a controller reads its configuration from.

    One that is started again while the file is being edited, or has gone, begins with the copy: else a bad edit, which
    a controller that runs only reports, would keep the next one from running at all. Without a `path` it is the
    embedded default.
    """

    path: Path | None
    copy: Path  # as closed to others as the file may have to be
    overrides: Mapping[str, str]
    hub: bool
    memory_bytes: int | None = None  # measured, for the embedded default
    _copied: str = field(default="", init=False)  # the digest of what the copy holds

    def load(self) -> Config:
        """Read the file. Raises ConfigError."""
        before = self._content()
        config = load_config(
            self.path, environ=os.environ, overrides=self.overrides, hub=self.hub, memory_bytes=self.memory_bytes
        )
        if before is not None and config.digest != self._copied and before == self._content():
            self._keep(before)
            self._copied = config.digest
        return config

    def last_good(self) -> Config | None:
        """What was read when the file was last good; None where that is not known."""
        content = None
        with contextlib.suppress(OSError, UnicodeDecodeError):
            content = self.copy.read_text("utf-8")
        if self.path is None or content is None:
            return None
        try:
            return load_text(content, path=self.path, environ=os.environ, overrides=self.overrides)
        except ConfigError:
            return None

    def _content(self) -> bytes | None:
        if self.path is None:
            return None
        try:
            return self.path.read_bytes()
        except OSError:
            return None

    def _keep(self, content: bytes) -> None:
        fresh = self.copy.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk must not keep a good configuration from being used
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            fresh.replace(self.copy)

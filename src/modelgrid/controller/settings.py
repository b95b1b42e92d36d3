"""The configuration in force: edits of its file are taken up while it serves, a bad edit is only reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from modelgrid.config import Config, ConfigError

log = structlog.get_logger()


class Settings:
    """Holds the last good configuration. `load` reads it anew, and raises ConfigError."""

    def __init__(self, load: Callable[[], Config]) -> None:
        self._load = load
        self.config = load()
        self.error: str | None = None
        self.note: str | None = None

    def refresh(self) -> bool:
        """Look at the file again; tells whether another configuration is in force now. Takes milliseconds."""
        try:
            fresh = self._load()
        except ConfigError as error:
            if self.error != str(error):
                self.error = str(error)
                log.error("config.refused", why=self.error)
            return False
        if self.error is not None:
            self.error = None
            log.info("config.mended")
        if fresh.digest == self.config.digest:
            return False
        self.note = None
        if (fresh.gateway, fresh.storage) != (self.config.gateway, self.config.storage):
            self.note = "gateway and storage have changed: they take effect when modelgrid is started again"
            log.warning("config.later", why=self.note)
            fresh = replace(fresh, gateway=self.config.gateway, storage=self.config.storage)
        self.config = fresh
        log.info("config.taken_up", models=len(fresh.models))
        return True

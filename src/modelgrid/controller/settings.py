"""The configuration in force: edits of its file are taken up while it serves, a bad edit is only reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from modelgrid.config import Config, ConfigError, GatewayConfig

log = structlog.get_logger()


class Settings:
    """Holds the last good configuration. `load` reads it anew, and raises ConfigError; `last_good` is asked where the
    very first `load` does. `gateway` is what is being served, whatever the file says by now."""

    def __init__(
        self,
        load: Callable[[], Config],
        last_good: Callable[[], Config | None] = lambda: None,
        gateway: GatewayConfig | None = None,
    ) -> None:
        self._load = load
        self.error: str | None = None
        self.note: str | None = None
        try:
            config = load()
        except ConfigError as error:
            known = last_good()
            if known is None:
                raise
            config = known
            self._refused(error)
        self.config = replace(config, gateway=gateway or config.gateway)

    def refresh(self) -> bool:
        """Look at the file again; tells whether another configuration is in force now. Takes milliseconds."""
        try:
            fresh = self._load()
        except ConfigError as error:
            self._refused(error)
            return False
        except Exception as error:  # whatever an edit can bring about: what runs goes on
            log.exception("config.broke")
            self._refused(error)
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

    def _refused(self, error: Exception) -> None:
        if self.error != str(error):
            self.error = str(error)
            log.error("config.refused", why=self.error)

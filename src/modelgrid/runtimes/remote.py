"""The remote runtime: servers that somebody else runs. Starting one registers it, stopping forgets it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from modelgrid.runtimes.runtime import Progress, Runtime, StartError
from modelgrid.spec import Launch, ModelName, ReplicaId, Running, Seen, Unknown


class RemoteRuntime(Runtime):
    """One file a replica in `records`. Whether the server answers is the health check's to find out."""

    name = "remote"

    def __init__(self, *, records: Path) -> None:
        self._records = records

    async def start(self, replica: ReplicaId, launch: Launch, progress: Progress) -> None:
        """See `Runtime.start`."""
        if launch.url is None:
            raise StartError(f"cannot start {launch.model}: it has no url (set the model's url)")
        facts = {
            "replica": replica,
            "model": launch.model,
            "revision": launch.revision,
            "url": launch.url.rstrip("/"),
        }
        progress("spawn", "registered")
        try:
            await asyncio.to_thread(self._register, replica, json.dumps(facts))
        except OSError as error:
            raise StartError(f"cannot start {launch.model}: its record can't be written: {error}") from error

    async def stop(self, replica: ReplicaId, *, force: bool) -> None:  # noqa: ARG002  the seam asks for it
        """See `Runtime.stop`."""
        self._path(replica).unlink(missing_ok=True)

    async def logs(self, replica: ReplicaId, lines: int) -> list[str]:  # noqa: ARG002  the seam asks for them
        """Always empty: a remote server's log is its own."""
        return []

    async def list(self) -> Sequence[Seen] | Unknown:
        """See `Runtime.list`."""
        try:
            names = sorted(os.listdir(self._records))  # noqa: PTH208  later Pythons' glob passes over what fails
            return [_read(self._records / name) for name in names if name.endswith(".json")]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError) as error:
            return Unknown(f"cannot read the records of remote servers: {error}")

    def _register(self, replica: ReplicaId, text: str) -> None:
        """A link fails where a record is already, so of two starts one wins; it appears whole or not at all."""
        self._records.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._records / f".{quote(replica, safe='')}.{os.getpid()}.{id(text)}"
        try:
            partial.touch(mode=0o600)
            partial.write_text(text)
            self._path(replica).hardlink_to(partial)
        except FileExistsError:
            pass
        finally:
            partial.unlink(missing_ok=True)

    def _path(self, replica: ReplicaId) -> Path:
        return self._records / f"{quote(replica, safe='')}.json"


def _read(path: Path) -> Seen:
    facts = json.loads(path.read_text())
    state = Running(url=facts["url"], root=facts["url"])
    return Seen(ReplicaId(facts["replica"]), ModelName(facts["model"]), facts["revision"], state)

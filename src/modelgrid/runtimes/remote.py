"""The remote runtime: servers that somebody else runs. Starting one registers it, stopping forgets it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import structlog

from modelgrid.runtimes.runtime import Progress, Runtime, StartError
from modelgrid.spec import Launch, ModelName, ReplicaId, Running, Seen, Unknown

log = structlog.get_logger()


class RemoteRuntime(Runtime):
    """One file a replica in `records`. Whether the server answers is the health check's to find out."""

    name = "remote"

    def __init__(self, *, records: Path) -> None:
        self._records = records
        self._told: set[Path] = set()  # unreadable records that were logged
        self._one_by_one = threading.Lock()  # two starts at once would choose one URL

    async def start(self, replica: ReplicaId, launch: Launch, progress: Progress) -> None:
        """See `Runtime.start`."""
        if not launch.urls:
            raise StartError(f"cannot start {launch.model}: it has no url (set the model's url)")
        progress("spawn", "registered")
        try:
            await asyncio.to_thread(self._register, replica, launch)
        except OSError as error:
            raise StartError(f"cannot start {launch.model}: its record can't be written: {error}") from error

    async def stop(self, replica: ReplicaId, *, force: bool) -> None:  # noqa: ARG002  the seam asks for it
        """See `Runtime.stop`."""
        self._path(replica).unlink(missing_ok=True)

    async def logs(self, replica: ReplicaId, lines: int) -> list[str]:  # noqa: ARG002  the seam asks for them
        """Always empty: a remote server's log is its own."""
        return []

    def look_again(self, replica: ReplicaId) -> None:
        """See `Runtime.look_again`: nothing is remembered."""

    async def list(self) -> Sequence[Seen] | Unknown:
        """See `Runtime.list`."""
        try:
            return await asyncio.to_thread(self._list)
        except OSError as error:
            return Unknown(f"cannot read the records of remote servers: {error}")

    def _list(self) -> Sequence[Seen]:
        try:
            names = sorted(os.listdir(self._records))  # noqa: PTH208  later Pythons' glob passes over what fails
        except FileNotFoundError:
            return []
        paths = [self._records / name for name in names if name.endswith(".json")]
        return [seen for path in paths if (seen := self._read(path)) is not None]

    def _register(self, replica: ReplicaId, launch: Launch) -> None:
        with self._one_by_one:
            facts = {
                "replica": replica,
                "model": launch.model,
                "revision": launch.revision,
                "url": self._free_url(replica, launch),
            }
            self._write(replica, json.dumps(facts))

    def _free_url(self, replica: ReplicaId, launch: Launch) -> str:
        """One that no other replica of this launch has; where there is none, one that the fewest have."""
        taken = [
            seen.state.url
            for seen in self._list()
            if isinstance(seen.state, Running)
            and (seen.model, seen.revision) == (launch.model, launch.revision)
            and seen.replica != replica
        ]
        return min((url.rstrip("/") for url in launch.urls), key=taken.count)

    def _write(self, replica: ReplicaId, text: str) -> None:
        """A link fails where a record is already, so of two starts one wins; it appears whole or not at all, also when
        the power fails."""
        self._records.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(replica)
        partial = self._records / f".{quote(replica, safe='')}.{os.getpid()}.{id(text)}"
        try:
            with open(partial, "w", encoding="utf-8", opener=_private) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(partial)
        except FileExistsError:
            if self._read(path) is None:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _read(self, path: Path) -> Seen | None:
        """None for what has gone meanwhile, and for what no version of ours wrote: a server that somebody else runs
        needs no end, so nothing is lost with its record."""
        try:
            return _parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            if path not in self._told:
                self._told.add(path)
                log.warning("runtime.unreadable_record", runtime=self.name, path=str(path), why=str(error))
            return None

    def _path(self, replica: ReplicaId) -> Path:
        return self._records / f"{quote(replica, safe='')}.json"


def _parse(content: bytes) -> Seen:
    facts = json.loads(content)
    state = Running(url=facts["url"], root=facts["url"])
    return Seen(ReplicaId(facts["replica"]), ModelName(facts["model"]), facts["revision"], state)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

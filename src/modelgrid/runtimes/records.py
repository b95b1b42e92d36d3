"""Records: what the process runtime wrote down of each replica, one file each, for whoever comes after."""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from modelgrid.runtimes.census import Identity, Mark, boot_id
from modelgrid.runtimes.locks import locked
from modelgrid.spec import ModelName, ReplicaId


@dataclass(frozen=True, slots=True)
class Record:
    """One replica. No secret is in it: what it was started with is not written down."""

    replica: ReplicaId
    model: ModelName
    revision: str
    url: str  # OpenAI base URL
    port: int
    pid: int  # of its first process, which leads its session
    started: int
    boot: str
    exit: str | None = None  # how its first process ended, where somebody saw it
    is_over: bool = False  # no process of it was left
    gpus: str = ""  # that it was started on: see `modelgrid.runtimes.gpus`

    @property
    def leader(self) -> Identity:
        """Its first process."""
        return Identity(self.pid, self.started)


def record_of(mark: Mark, leader: Identity) -> Record:
    """The record of a replica that is known from its process alone."""
    return Record(
        *(mark.replica, mark.model, mark.revision, mark.url, mark.port),
        *(leader.pid, leader.started, boot_id()),
        gpus=mark.gpus,
    )


class Records:
    """A folder of records. Whoever changes one holds its lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lock(self, replica: ReplicaId, timeout_s: float) -> AbstractContextManager[None]:
        """The right to start, forget and rewrite one replica. Raises LockTimeout."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return locked(self._path(replica, ".lock"), timeout_s)

    def read(self) -> dict[ReplicaId, Record]:
        """All records. Raises OSError."""
        try:
            names = sorted(os.listdir(self._folder))  # noqa: PTH208  later Pythons' glob passes over what fails
        except FileNotFoundError:
            return {}
        found = (_parse(self._folder / name) for name in names if name.endswith(".json"))
        return {record.replica: record for record in found if record is not None}

    def has(self, replica: ReplicaId) -> bool:
        """Whether there is a record of it."""
        return self._path(replica, ".json").exists()

    def get(self, replica: ReplicaId) -> Record | None:
        """One record, if it is there."""
        return _parse(self._path(replica, ".json"))

    def write(self, record: Record) -> None:
        """Write it whole or not at all, also when the power fails. Raises OSError."""
        path = self._path(record.replica, ".json")
        partial = path.with_suffix(".partial")
        with open(partial, "w", encoding="utf-8", opener=_private) as file:
            json.dump(dataclasses.asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def remove(self, replica: ReplicaId) -> None:
        """Forget a replica. Its lock, which the caller holds, goes with it."""
        for suffix in (".json", ".partial", ".lock"):
            self._path(replica, suffix).unlink(missing_ok=True)

    def _path(self, replica: ReplicaId, suffix: str) -> Path:
        return self._folder / (quote(replica, safe="") + suffix)


def _parse(path: Path) -> Record | None:
    """None for what isn't there, and for what no version of ours wrote: a process behind it shows itself."""
    try:
        return Record(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

"""The census: which processes of this machine belong to which replica.

A replica's processes carry its id in their environment, which children inherit wherever they go. Programs that
rewrite their title (vLLM does) overwrite what the kernel shows of it, so three more signs count: the session of the
replica's first process, descent from a member, and having been a member once. A process is known by its pid and
start time together, for pids are used again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from modelgrid.spec import ModelName, ReplicaId

INSTANCE = "MODELGRID_INSTANCE"
REPLICA = "MODELGRID_REPLICA"
MODEL = "MODELGRID_MODEL"
REVISION = "MODELGRID_REVISION"
PORT = "MODELGRID_PORT"
URL = "MODELGRID_URL"
GPUS = "MODELGRID_GPUS"

_PROC = Path("/proc")
# What it looks like when a process goes while we look, or is another user's. Anything else (no descriptor is left,
# say) must not pass for a process that has gone: that would start it twice.
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
# Between fork and exec a child shows its parent's environment: "not ours" is final only for a process this old.
_YOUNG_S = 3.0


class Identity(NamedTuple):
    """One process, also after its pid was given to another."""

    pid: int
    started: int  # clock ticks since boot (elsewhere than on Linux: hundredths since the epoch)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a process's environment says of the replica that it belongs to."""

    instance: str
    replica: ReplicaId
    model: ModelName
    revision: str
    url: str
    port: int
    gpus: str = ""  # see `modelgrid.runtimes.gpus`


class Process(NamedTuple):
    """A process as the system lists it."""

    identity: Identity
    parent: int
    session: int
    exit_status: int | None  # as waitpid tells it; None while it lives


@dataclass(frozen=True, slots=True)
class Member:
    """A living process of a replica."""

    identity: Identity
    leads: bool  # it is the first process of its session
    mark: Mark | None  # None where its environment was overwritten, or hidden


@dataclass(frozen=True, slots=True)
class Survey:
    """All living processes of an installation's replicas, and how leaders that nobody has waited for ended."""

    members: Mapping[ReplicaId, tuple[Member, ...]]
    exits: Mapping[ReplicaId, int]


class Census:
    """Finds the processes of one installation. Keeps what costs: environments are read once a process.

    Not for use by two threads at once.
    """

    def __init__(self, instance: str, *, young_s: float = _YOUNG_S) -> None:
        self._instance = instance
        self._young_s = young_s
        self._marks: dict[Identity, Mark | None] = {}
        self._members: dict[Identity, ReplicaId] = {}

    def take(self, leaders: Mapping[ReplicaId, Identity]) -> Survey:
        """Look once at all processes. `leaders` are the first processes as the records know them. Raises OSError."""
        listed = _scan()
        exits = {
            replica: process.exit_status
            for replica, leader in leaders.items()
            if (process := listed.get(leader.pid)) and process.identity == leader and process.exit_status is not None
        }
        living = {pid: process for pid, process in listed.items() if process.exit_status is None}
        self._read_marks(living)
        owners = self._owners(living, _sessions(listed, leaders))
        self._members = {living[pid].identity: replica for pid, replica in owners.items()}
        members: dict[ReplicaId, list[Member]] = {}
        for pid, replica in sorted(owners.items()):
            process = living[pid]
            mark = self._marks[process.identity]
            members.setdefault(replica, []).append(Member(process.identity, process.session == pid, mark))
        return Survey({replica: tuple(found) for replica, found in members.items()}, exits)

    def _read_marks(self, living: Mapping[int, Process]) -> None:
        known, self._marks = self._marks, {}
        young = _now() - self._young_s * _ticks_per_s()
        for pid, process in living.items():
            identity = process.identity
            mark = known.get(identity)
            if mark is None and (identity not in known or identity.started > young):
                mark = _read_mark(pid)
            self._marks[identity] = mark

    def _owners(self, living: Mapping[int, Process], sessions: Mapping[int, ReplicaId]) -> dict[int, ReplicaId]:
        owners: dict[int, ReplicaId | None] = {os.getpid(): None}  # whoever looks is no replica, wherever it runs
        for pid, process in living.items():
            mark = self._marks[process.identity]
            if mark is not None:
                owners.setdefault(pid, mark.replica if mark.instance == self._instance else None)
            elif replica := self._members.get(process.identity) or sessions.get(process.session):
                owners.setdefault(pid, replica)
        if not any(owners.values()):
            return {}
        for pid in living:
            _inherit(pid, living, owners)
        return {pid: replica for pid, replica in owners.items() if replica is not None and pid in living}


def _inherit(pid: int, living: Mapping[int, Process], owners: dict[int, ReplicaId | None]) -> None:
    """Settle `pid` and its forebears: each belongs where its nearest settled forebear does."""
    line = []
    while pid in living and pid not in owners:
        owners[pid] = None  # also ends the walk, should parents form a ring while we look
        line.append(pid)
        pid = living[pid].parent
    if replica := owners.get(pid):
        owners.update(dict.fromkeys(line, replica))


def _sessions(listed: Mapping[int, Process], leaders: Mapping[ReplicaId, Identity]) -> dict[int, ReplicaId]:
    """Session ids of the replicas. The kernel keeps a session's id from reuse while a process is in it; a leader's
    pid that now belongs to another process says that its session is over."""
    return {
        leader.pid: replica
        for replica, leader in leaders.items()
        if leader.pid not in listed or listed[leader.pid].identity == leader
    }


def identify(pid: int) -> Identity | None:
    """The process that has `pid` now, dead or alive. None when there is none. Raises OSError."""
    process = _read_process(pid) if _has_proc() else _ask_psutil(pid)
    return process.identity if process else None


def boot_id() -> str:
    """Names the time since the machine was started: identities of another boot mean nothing."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except _GONE:
        return ""


def _scan() -> dict[int, Process]:
    if not _has_proc():
        found = (_ask_psutil(pid) for pid in psutil.pids())
    else:
        found = (_read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  hot
    return {process.identity.pid: process for process in found if process is not None}


def _has_proc() -> bool:
    return sys.platform == "linux"


def _read_process(pid: int) -> Process | None:
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)  # open() costs three times as much
    except _GONE:
        return None
    try:
        line = os.read(descriptor, 4096)
    except _GONE:
        return None
    finally:
        os.close(descriptor)
    fields = line[line.rindex(b")") + 2 :].split()  # the name before it may hold anything
    dead = fields[0] in (b"Z", b"X", b"x")
    identity = Identity(pid, int(fields[19]))
    return Process(identity, int(fields[1]), int(fields[3]), int(fields[49]) if dead else None)


def _ask_psutil(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            identity = Identity(pid, int(process.create_time() * 100))
            dead = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return Process(identity, process.ppid(), os.getsid(pid), 0 if dead else None)
    except (psutil.Error, *_GONE):
        return None


def _read_mark(pid: int) -> Mark | None:
    """None where there is none, where it can't be read (another user's) and where it is incomplete."""
    try:
        if not _has_proc():
            return _mark(psutil.Process(pid).environ())
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except (psutil.Error, *_GONE):
        return None
    if REPLICA.encode() not in content:
        return None
    pairs = (os.fsdecode(line).partition("=") for line in content.split(b"\0"))
    return _mark({name: value for name, _, value in pairs})


def _mark(environ: Mapping[str, str]) -> Mark | None:
    try:
        return Mark(
            instance=environ[INSTANCE],
            replica=ReplicaId(environ[REPLICA]),
            model=ModelName(environ[MODEL]),
            revision=environ[REVISION],
            url=environ[URL],
            port=int(environ[PORT]),
            gpus=environ.get(GPUS, ""),
        )
    except (KeyError, ValueError):
        return None


def _now() -> float:
    """The present, on the scale of `Identity.started`."""
    if _has_proc():
        return time.clock_gettime(time.CLOCK_BOOTTIME) * _ticks_per_s()
    return time.time() * 100


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK") if _has_proc() else 100

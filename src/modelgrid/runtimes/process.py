"""The process runtime: replicas as processes of this machine, which outlive whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelgrid.runtimes import census, gpus
from modelgrid.runtimes.census import Census, Identity, Member, Survey
from modelgrid.runtimes.environments import Environments
from modelgrid.runtimes.locks import LockTimeout
from modelgrid.runtimes.memory import MemoryMeter
from modelgrid.runtimes.placeholders import fill
from modelgrid.runtimes.ports import HOST, Ports, holder, is_free
from modelgrid.runtimes.records import Record, Records, record_of
from modelgrid.runtimes.replica_logs import ReplicaLogs
from modelgrid.runtimes.runtime import Progress, Runtime, StartError
from modelgrid.runtimes.signals import send
from modelgrid.runtimes.startable import check_startable
from modelgrid.spec import Exited, Launch, ReplicaId, Running, Seen, Unknown

_START_LOCK_S = 10.0  # a start holds the lock for milliseconds
_STOP_LOCK_S = 0.3
_FORCE_S = 0.5  # how long one forced stop goes on killing what appears anew
# Variables that programs may need whatever they run for: these are not kept from engines.
_EVERYBODYS = frozenset(
    ("HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"),
) | {"HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
_UNSEEN = "gone while nobody watched"


class ProcessRuntime(Runtime):
    """Each replica is a session of processes. `instance` names the installation: only what carries it is ours.
    `hidden` are the environment variables that engines don't inherit: most are others' secrets. `on_gpus` tells what
    processes hold of GPUs, by pid and device.

    What can be seen of the processes themselves (`Census`) is the truth; `records` adds what they can't tell once
    they are gone. Blocking work happens in threads, one look at a time.
    """

    name = "process"

    def __init__(
        self,
        *,
        instance: str,
        records: Path,
        logs: Path,
        environments: Environments,
        hidden: Callable[[], Collection[str]] = frozenset,
        on_gpus: Callable[[], Mapping[int, Mapping[str, int]]] = dict,
    ) -> None:
        self._instance = instance
        self._records = Records(records)
        self._logs = ReplicaLogs(logs / "replicas")
        self._environments = environments
        self._hidden = hidden
        self._on_gpus = on_gpus
        self._guard = threading.RLock()  # over all that follows
        self._census = Census(instance)
        self._memory = MemoryMeter()
        self._ports = Ports()
        self._children: dict[ReplicaId, subprocess.Popen[bytes]] = {}
        self._asked: set[Identity] = set()

    async def start(self, replica: ReplicaId, launch: Launch, progress: Progress) -> None:
        """See `Runtime.start`."""
        if not launch.argv:
            raise StartError(f"cannot start {launch.model}: it has no command (its engine belongs to another runtime)")
        check_startable(launch)
        if self._records.has(replica):
            return
        python = Path(sys.executable)
        if launch.environment is not None:
            python = await self._environments.ready(launch.environment, progress)
        progress("spawn", Path(fill(launch.argv[0], {"python": str(python)})).name)
        await _to_its_end(lambda: self._start_once(replica, launch, python))

    async def stop(self, replica: ReplicaId, *, force: bool) -> None:
        """See `Runtime.stop`. A gentle stop asks each process once, however often it is called."""
        await _to_its_end(lambda: self._stop(replica, force))

    async def logs(self, replica: ReplicaId, lines: int) -> list[str]:
        """See `Runtime.logs`."""
        return await asyncio.to_thread(self._logs.tail, replica, lines)

    async def list(self) -> Sequence[Seen] | Unknown:
        """See `Runtime.list`."""
        try:
            return await asyncio.to_thread(self._list)
        except OSError as error:
            return Unknown(f"cannot list processes: {error}")

    def _start_once(self, replica: ReplicaId, launch: Launch, python: Path) -> None:
        try:
            with self._records.lock(replica, _START_LOCK_S):
                if not self._is_there(replica):
                    self._spawn(replica, launch, python)
        except LockTimeout:
            raise StartError(
                f"cannot start {replica}: another process has been starting or stopping it for {_START_LOCK_S:.0f} s"
                " (try again; modelgrid status shows what runs)"
            ) from None
        except OSError as error:
            raise StartError(f"cannot start {replica}: {error} (look at the disk, and at ulimit -n)") from error

    def _spawn(self, replica: ReplicaId, launch: Launch, python: Path) -> None:
        records = self._records.read()
        port = self._port(launch, records)
        values = {"port": str(port), "host": HOST, "python": str(python), "bin": str(python.parent)}
        argv = [fill(word, values) for word in launch.argv]
        url = f"http://{HOST}:{port}/v1"
        inherited = _inherited(self._hidden())
        environ = _environ(inherited, launch, values, has_environment=launch.environment is not None)
        environ |= {
            census.INSTANCE: self._instance,
            census.REPLICA: replica,
            census.MODEL: launch.model,
            census.REVISION: launch.revision,
            census.PORT: str(port),
            census.URL: url,
            census.GPUS: gpus.words(launch.gpus),
        }
        if launch.cwd is not None and not Path(launch.cwd).is_dir():
            raise StartError(f"cannot start {launch.model}: its folder {launch.cwd} is not there (see cwd)")
        self._logs.prune(records.keys())
        with self._logs.open(replica) as log:
            child = _popen(argv, environ, launch, log.fileno())
        try:
            # Nothing there: it has ended, and somebody else has waited for it. Then no process is its leader.
            pid, started = census.identify(child.pid) or Identity(child.pid, 0)
            self._records.write(
                Record(
                    *(replica, launch.model, launch.revision, url, port, pid, started, census.boot_id()),
                    gpus=gpus.words(launch.gpus),
                )
            )
        except OSError:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        self._children[replica] = child

    def _port(self, launch: Launch, records: Mapping[ReplicaId, Record]) -> int:
        if launch.port is None:
            with self._guard:
                return self._ports.choose({record.port for record in records.values()})
        if is_free(launch.port):
            return launch.port
        by = holder(launch.port)
        raise StartError(
            f"cannot start {launch.model}: port {launch.port} is taken{f' by {by}' if by else ''}"
            " (stop what holds it, or change the model's port)"
        )

    def _is_there(self, replica: ReplicaId) -> bool:
        return self._records.get(replica) is not None or replica in self._survey(self._records.read()).members

    def _survey(self, records: Mapping[ReplicaId, Record]) -> Survey:
        boot = census.boot_id()
        leaders = {
            replica: record.leader for replica, record in records.items() if record.boot == boot and not record.is_over
        }
        with self._guard:
            return self._census.take(leaders)

    def _list(self) -> Sequence[Seen]:
        with self._guard:
            records = self._records.read()
            # First the look, then the question how children ended: whoever is missing in the first answers the second.
            survey = self._survey(records)
            for replica, members in survey.members.items():
                if replica not in records:
                    records[replica] = self._adopt(members)
            for replica in sorted(records):
                records[replica] = self._note_end(records[replica], survey)
                self._logs.cap(replica)
            on_gpus = self._on_gpus() if survey.members else {}  # opening a driver takes up to a second
            return [self._seen(record, survey, on_gpus) for record in records.values()]

    def _adopt(self, members: Sequence[Member]) -> Record:
        """A process without a record: whoever started it died in between, or is about to write it."""
        leader = next((member for member in members if member.leads and member.mark), members[0])
        marks = [member.mark for member in (leader, *members) if member.mark is not None]
        record = record_of(marks[0], leader.identity)
        self._rewrite(record, is_new=True)
        return record

    def _note_end(self, record: Record, survey: Survey) -> Record:
        members = survey.members.get(record.replica, ())
        if any(member.identity == record.leader for member in members):
            return record
        noted = record
        if noted.exit is None and (status := self._exit_status(record, survey)) is not None:
            noted = replace(noted, exit=_ending(status))
        if not members:
            noted = replace(noted, is_over=True)
        if noted != record:
            self._rewrite(noted, is_new=False)
        return noted

    def _exit_status(self, record: Record, survey: Survey) -> int | None:
        """As subprocess tells it. Only a parent may ask; others can read it while nobody has waited for it."""
        child = self._children.get(record.replica)
        if child is not None and child.pid == record.pid:
            return child.poll()
        status = survey.exits.get(record.replica)
        return None if status is None else os.waitstatus_to_exitcode(status)

    def _rewrite(self, record: Record, *, is_new: bool) -> None:
        """Unless somebody starts or stops it just now: then the next lap is early enough."""
        try:
            with self._records.lock(record.replica, 0):
                if (self._records.get(record.replica) is None) == is_new:
                    self._records.write(record)
                elif not is_new:
                    self._records.remove(record.replica)  # it was stopped meanwhile: leave no lock file behind
        except (LockTimeout, OSError):
            pass  # the record is a memory, not the truth; a full disk must not hide replicas

    def _seen(self, record: Record, survey: Survey, on_gpus: Mapping[int, Mapping[str, int]]) -> Seen:
        members = survey.members.get(record.replica, ())
        state: Running | Exited
        if any(member.identity == record.leader for member in members):
            held_bytes = self._memory.read_bytes(record.replica, members)
            root, by_device = record.url.removesuffix("/v1"), gpus.sum_by_device(members, on_gpus)
            state = Running(record.url, root, held_bytes, record.pid, by_device)
        else:
            state = Exited(record.exit or _UNSEEN, len(members))
        devices = gpus.devices(record.gpus)
        return Seen(record.replica, record.model, record.revision, state, devices=devices)

    def _stop(self, replica: ReplicaId, force: bool) -> None:
        try:
            with self._records.lock(replica, _STOP_LOCK_S):
                if self._end(replica, force):
                    self._forget(replica)
        except LockTimeout:
            pass  # it is being started; stop is repeated
        except OSError:
            with suppress(OSError):  # which list tells
                self._end(replica, force)  # without the lock: on a full disk there is none to be had

    def _end(self, replica: ReplicaId, force: bool) -> bool:
        """Whether no process of it is left."""
        deadline = time.monotonic() + _FORCE_S
        while members := self._survey(self._records.read()).members.get(replica, ()):
            if not force:
                self._ask(members)
                return False
            for member in members:
                send(member.identity, signal.SIGKILL)
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def _ask(self, members: Sequence[Member]) -> None:
        for member in members:
            if member.identity not in self._asked:
                self._asked.add(member.identity)
                send(member.identity, signal.SIGTERM)

    def look_again(self, replica: ReplicaId) -> None:
        """See `Runtime.look_again`."""
        self._memory.forget(replica)

    def _forget(self, replica: ReplicaId) -> None:
        with self._guard:
            self._asked = {identity for identity in self._asked if census.identify(identity.pid) == identity}
            self._memory.forget(replica)
            if child := self._children.pop(replica, None):
                child.poll()  # takes the dead child off the system's list
            self._records.remove(replica)


async def _to_its_end(work: Callable[[], None]) -> None:
    """Blocking work in a thread, which a cancellation waits for: nothing happens behind the caller's back."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # is of no interest any more
        raise


def _popen(argv: Sequence[str], environ: Mapping[str, str], launch: Launch, log: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env=environ,
            cwd=launch.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise StartError(
            f"cannot start {launch.model}: there is no program {argv[0]} (install it, or correct the model's command)"
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"cannot start {launch.model}: {argv[0]} can't be run: {why} (see its command)") from error


def _inherited(hidden: Collection[str]) -> dict[str, str]:
    """Ours goes on to the engine, without our own settings and without what is not meant for it."""
    kept_back = frozenset(hidden) - _EVERYBODYS
    return {
        name: value for name, value in os.environ.items() if not name.startswith("MODELGRID_") and name not in kept_back
    }


def _environ(
    base: Mapping[str, str], launch: Launch, values: Mapping[str, str], *, has_environment: bool
) -> dict[str, str]:
    """What is inherited, without what would lead its Python astray, and what the launch says. The model's own word
    stands over ours, also on which GPUs it sees."""
    environ = dict(base) | gpus.environ_of(launch.gpus)
    environ.setdefault("PYTHONUNBUFFERED", "1")  # else the last lines before a crash are lost
    if has_environment:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environ.pop(name, None)
        environ["VIRTUAL_ENV"] = str(Path(values["bin"]).parent)
        environ["PATH"] = os.pathsep.join([values["bin"], environ.get("PATH", os.defpath)])
    return environ | {name: fill(value, values) for name, value in launch.env.items()}


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"

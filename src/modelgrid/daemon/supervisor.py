"""The supervisor: `modelgrid serve` itself. It holds the port, keeps the others alive, and ends them in order.

It decides nothing and holds no state, so that there is little in it that could fail. When it is killed, the
controller, the gateway workers and the engines go on; the next `modelgrid serve` takes over, `modelgrid stop` ends
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from modelgrid.config import Config
from modelgrid.config.paths import Paths
from modelgrid.daemon import roles
from modelgrid.daemon.asking import serve_asking
from modelgrid.daemon.children import Child, Death
from modelgrid.daemon.config_file import ConfigFile
from modelgrid.daemon.leftovers import FORCED_S, StopError, end_replicas
from modelgrid.daemon.roles import Role
from modelgrid.daemon.workers import Workers
from modelgrid.runtimes.locks import LockTimeout, locked
from modelgrid.runtimes.ports import holder
from modelgrid.store import open_store

_BACKLOG = 4096
_LOCK_S = 0.5  # `running_pid` holds the lock for a moment
_TAKE_OVER_S = 5.0
_AFTER_GRACE_S = 5.0  # what workers may take beyond the grace time of their streams
_AFTER_ENGINES_S = 15.0  # what the controller may take beyond the grace time of its engines; removed models' have 10 s
_HURRIED_S = 5.0  # what the controller may still take when a second signal has come
_DEATHS_KEPT = 16  # until they are told
_REAP_EVERY_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36

log = structlog.get_logger()


class ServeError(Exception):
    """modelgrid can't serve, or has not ended all that it started; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to serve. The others are how the controller reads `config` again."""

    config: Config
    path: Path | None
    overrides: Mapping[str, str]
    hub: bool
    memory_bytes: int | None = None


# It runs beside what serves: the event is set when the end begins, and it is cancelled when all has ended. The deaths
# are those of children, for it to take.
Announce = Callable[[asyncio.Event, deque[Death]], Coroutine[None, None, None]]


def patience_s(config: Config) -> float:
    """How long an end may take, at most: streams first, then engines, then what the controller has not ended."""
    engines_s = _engines_grace_s(config)
    return config.gateway.grace_s + _AFTER_GRACE_S + 2 * engines_s + _AFTER_ENGINES_S + FORCED_S


def supervise(paths: Paths, plan: Plan, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT. Raises ServeError."""
    paths.make()
    with _only_one(paths):
        _check_store(paths, plan.config)
        takes_over = _take_over(paths)
        if not takes_over:
            paths.table.unlink(missing_ok=True)  # of an earlier life: its ports may be others' now
        patience_s = _TAKE_OVER_S if takes_over else 0.0
        with _listen(plan.config.gateway.host, plan.config.gateway.port, patience_s) as listener:
            _become_reaper()
            asyncio.run(_Supervisor(paths, plan, listener).run(announce))


class _Supervisor:
    def __init__(self, paths: Paths, plan: Plan, listener: socket.socket) -> None:
        self._paths = paths
        self._plan = plan
        self._config = plan.config
        self._listener = listener
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._deaths: deque[Death] = deque(maxlen=_DEATHS_KEPT)
        options = {
            "config": str(plan.path) if plan.path else None,
            "overrides": dict(plan.overrides),
            "hub": plan.hub,
            "memory_bytes": plan.memory_bytes,
            "gateway": dataclasses.asdict(plan.config.gateway),
        }
        self._controller = Child(
            "controller",
            ["controller", json.dumps(options)],
            roles.marks(paths, Role.CONTROLLER),
            died=self._deaths.append,
        )
        self._workers = Workers(paths, plan.config.gateway, listener, died=self._deaths.append)

    async def run(self, announce: Announce) -> None:
        loop = asyncio.get_running_loop()
        has_terminal = _has_terminal()  # asked now: one that was closed isn't had any more
        async with asyncio.TaskGroup() as group:

            def hung_up() -> None:  # by a terminal that was closed, else by somebody who wants new workers
                if has_terminal:
                    self._signalled()
                else:
                    group.create_task(self._workers.replace())

            acts = {signal.SIGTERM: self._signalled, signal.SIGINT: self._signalled, signal.SIGHUP: hung_up}
            for number, act in acts.items():
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    loop.add_signal_handler(number, act)
            asking = group.create_task(serve_asking(self._paths.serve_socket, self._workers))
            telling = group.create_task(self._tell(announce))
            controller = group.create_task(self._controller.keep())
            reaping = group.create_task(
                _reap(lambda: {self._controller.pid, *(worker.pid for worker in self._workers.children)})
            )
            self._workers.start(group)
            await self._stopping.wait()
            self._workers.end()
            self._listener.close()  # else new callers would be kept waiting by a port that nobody serves
            # Streams first: as long as a worker has one, its engine is needed.
            limit_s = self._config.gateway.grace_s + _AFTER_GRACE_S
            await self._end(self._workers.children, self._workers.tasks, limit_s, 0.0)
            engines_s = self._engines_grace_s()
            await self._end([self._controller], [controller], engines_s + _AFTER_ENGINES_S, _HURRIED_S)
            left = None if self._controller.has_ended_well else await self._tidy_up(engines_s)
            asking.cancel()
            reaping.cancel()
            telling.cancel()
        if left is not None:
            raise ServeError(left)

    async def _tell(self, announce: Announce) -> None:
        """Whatever keeps somebody from being told, nobody is served the worse for it."""
        try:
            await announce(self._stopping, self._deaths)
        except Exception:
            log.exception("supervisor.is_mute")

    async def _end(
        self, children: list[Child], tasks: list[asyncio.Task[str]], limit_s: float, hurried_s: float
    ) -> None:
        """Ask, wait, and then don't ask. A second signal leaves no more than `hurried_s` of the patience."""
        for child in children:
            child.end()
        ended = asyncio.ensure_future(asyncio.wait(tasks))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait([ended, hurry], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done():
            await asyncio.wait([ended], timeout=min(limit_s, hurried_s))
        hurry.cancel()
        if not ended.done():
            log.error("supervisor.kills", children=", ".join(child.name for child in children))
            for child in children:
                child.end(signal.SIGKILL)
            await ended

    def _engines_grace_s(self) -> float:
        """The file may have been edited since: what it said last holds too."""
        file = ConfigFile(self._plan.path, self._paths.last_config, self._plan.overrides, hub=self._plan.hub)
        return max(_engines_grace_s(self._config), _engines_grace_s(file.last_good() or self._config))

    async def _tidy_up(self, grace_s: float) -> str | None:
        """A controller that was killed, or told to end before it could listen, has left its replicas. Tells what could
        not be ended."""
        from modelgrid.daemon.controller_process import runtimes_of  # with all that a controller needs

        roles.end([member for member in roles.members(self._paths) if member.role is Role.MAKING], signal.SIGKILL, 0)
        runtimes = runtimes_of(self._paths, self._config)
        try:
            ended = await end_replicas(runtimes, 0.0 if self._hurry.is_set() else grace_s, lambda _: None)
        except StopError as error:
            log.error("supervisor.left_something", why=str(error))
            return f"{error} (try: modelgrid stop)"
        log.warning("supervisor.tidied_up", replicas=ended)
        return None

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


def _engines_grace_s(config: Config) -> float:
    return max((model.stop_grace_s for model in config.models), default=0.0)


@contextlib.contextmanager
def _only_one(paths: Paths) -> Iterator[None]:
    path = paths.run / "daemon.lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path, _LOCK_S))
        except LockTimeout:
            raise ServeError(
                f"cannot serve: modelgrid runs already, as process {path.read_text().strip() or '?'} "
                "(see: modelgrid status; end it: modelgrid stop; or set another MODELGRID_HOME)"
            ) from None
        path.write_text(str(os.getpid()))
        yield
        path.write_text("")


def running_pid(paths: Paths) -> int | None:
    """The supervisor's process id; None when none runs."""
    try:
        with (paths.run / "daemon.lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = (paths.run / "daemon.lock").read_text().strip()
        return int(text) if text.isdigit() else None
    except OSError:
        return None
    return None


def _check_store(paths: Paths, config: Config) -> None:
    """It must tell what the controller asks of it at once. Without a key, only this machine's own users may come."""
    store = open_store(paths.store)
    try:
        store.saved()
        has_key = any(key.revoked is None for key in store.keys())  # noqa: SIM118  not a dict's
    finally:
        store.close()
    host = config.gateway.host
    if not has_key and not config.gateway.is_loopback:
        raise ServeError(
            f"cannot serve on {host}: without a key anybody there could use it "
            "(make one: modelgrid key create NAME; or serve on gateway.host 127.0.0.1)"
        )


def _take_over(paths: Paths) -> bool:
    """End what a supervisor that was killed has left: its workers finish their streams on their own, its controller
    may be killed at any time. Engines stay, and are adopted. Tells whether workers were left."""
    left = roles.members(paths)
    workers = [member for member in left if member.role is Role.GATEWAY]
    others = [member for member in left if member.role is not Role.GATEWAY]
    if left:
        log.info("supervisor.takes_over", workers=len(workers), others=len(others))
    roles.end(workers, signal.SIGTERM, 0)
    roles.end(others, signal.SIGKILL, _TAKE_OVER_S)
    return bool(workers)


def _listen(host: str, port: int, patience_s: float) -> socket.socket:
    """The listening socket, which workers inherit: it stays open when one of them dies. A worker of before, that was
    told to end, may hold the port for a moment."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + patience_s
    try:
        while True:
            try:
                listener.bind((host, port))
                listener.listen(_BACKLOG)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise ServeError(_why_not_bound(host, port, error)) from None
                time.sleep(0.05)
    except BaseException:
        listener.close()
        raise
    return listener


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    at = f"cannot listen on {host}:{port}"
    other_port = f"modelgrid serve --port {port + 1 if port < 65535 else 9000}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{at}: the port is in use by {holder(port) or 'a process of another user'} (try: {other_port})"
        case errno.EACCES if port < 1024:
            return f"{at}: ports below 1024 are for the administrator (try: modelgrid serve --port 9000)"
        case _:
            why = error.strerror or error
            return f"{at}: {why} (gateway.host is an address of this machine; try: modelgrid serve --host 127.0.0.1)"


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _become_reaper() -> None:
    """Engines whose controller was killed become children of this process. Linux only; elsewhere init's."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def _reap(own: Callable[[], set[int | None]]) -> None:
    """Collect such adopted children once they are dead: they would stay as zombies for ever."""
    while True:
        await asyncio.sleep(_REAP_EVERY_S)
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error, ChildProcessError):
                if child.pid not in own() and child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)  # noqa: ASYNC222  it is dead, and does not block

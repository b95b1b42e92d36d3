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
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog

from modelgrid.config import Config
from modelgrid.config.paths import Paths
from modelgrid.daemon import roles
from modelgrid.daemon.children import Child
from modelgrid.daemon.roles import Role
from modelgrid.store import open_store

_BACKLOG = 4096
_TAKE_OVER_S = 5.0
_AFTER_GRACE_S = 5.0
_REAP_EVERY_S = 1.0
_PR_SET_CHILD_SUBREAPER = 36

log = structlog.get_logger()


class ServeError(Exception):
    """modelgrid can't serve; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to serve. `path` and `overrides` are how the controller reads `config` again."""

    config: Config
    path: Path | None
    overrides: Mapping[str, str]
    hub: bool


def supervise(paths: Paths, plan: Plan, announce: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Serve until SIGTERM or SIGINT. `announce` runs beside it, its event is set when the end begins, and it is
    cancelled when all has ended. Raises ServeError."""
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
        self._config = plan.config
        self._listener = listener
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        options = {
            "config": str(plan.path) if plan.path else None,
            "overrides": dict(plan.overrides),
            "hub": plan.hub,
            "gateway": dataclasses.asdict(plan.config.gateway),
        }
        self._controller = Child("controller", ["controller", json.dumps(options)], roles.marks(paths, Role.CONTROLLER))
        self._workers = [self._worker(paths, listener, number) for number in range(1, plan.config.gateway.workers + 1)]

    def _worker(self, paths: Paths, listener: socket.socket, number: int) -> Child:
        options = {
            "gateway": dataclasses.asdict(self._config.gateway),
            "number": number,
            "descriptor": listener.fileno(),
        }
        arguments = ["gateway", json.dumps(options)]
        return Child(f"gateway-{number}", arguments, roles.marks(paths, Role.GATEWAY), [listener.fileno()])

    async def run(self, announce: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                loop.add_signal_handler(number, self._signalled)
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(announce(self._stopping))
            controller = group.create_task(self._controller.keep())
            reaping = group.create_task(
                _reap(lambda: {self._controller.pid, *(worker.pid for worker in self._workers)})
            )
            workers = [group.create_task(worker.keep()) for worker in self._workers]
            await self._stopping.wait()
            self._listener.close()  # else new callers would be kept waiting by a port that nobody serves
            # Streams first: as long as a worker has one, its engine is needed.
            await self._end(self._workers, workers, self._config.gateway.grace_s + _AFTER_GRACE_S)
            await self._end([self._controller], [controller], None)
            if not self._controller.has_ended_well:
                await self._tidy_up()
            reaping.cancel()
            telling.cancel()

    async def _end(self, children: list[Child], tasks: list[asyncio.Task[None]], limit_s: float | None) -> None:
        """Ask, and wait: the controller has limits of its own for what it stops. A second signal ends the patience."""
        for child in children:
            child.end()
        ended = asyncio.ensure_future(asyncio.wait(tasks))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait([ended, hurry], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            for child in children:
                if child.name != self._controller.name:  # killed, it would leave engines behind
                    child.end(signal.SIGKILL)
            await ended

    async def _tidy_up(self) -> None:
        """A controller that was killed, or told to end before it could listen, has left its replicas."""
        from modelgrid.daemon.controller_process import runtimes_of
        from modelgrid.daemon.leftovers import StopError, end_replicas

        grace_s = max((model.stop_grace_s for model in self._config.models), default=0.0)
        try:
            ended = await end_replicas(runtimes_of(self._paths, self._config), grace_s, lambda _: None)
        except StopError as error:
            log.error("supervisor.left_something", why=f"{error} (try: modelgrid stop)")
        else:
            log.warning("supervisor.tidied_up", replicas=ended)

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


@contextlib.contextmanager
def _only_one(paths: Paths) -> Iterator[None]:
    path = paths.run / "daemon.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ServeError(
                f"cannot serve: modelgrid runs already, as process {file.read().strip() or '?'} "
                "(see: modelgrid status; end it: modelgrid stop; or set another MODELGRID_HOME)"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


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
    """Without a key, only this machine's own users may come."""
    store = open_store(paths.store)
    try:
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
    controllers = [member for member in left if member.role is Role.CONTROLLER]
    if left:
        log.info("supervisor.takes_over", workers=len(workers), controllers=len(controllers))
    roles.end(workers, signal.SIGTERM, 0)
    roles.end(controllers, signal.SIGKILL, _TAKE_OVER_S)
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
            return f"{at}: the port is in use by {_holder(port) or 'a process of another user'} (try: {other_port})"
        case errno.EACCES if port < 1024:
            return f"{at}: ports below 1024 are for the administrator (try: modelgrid serve --port 9000)"
        case _:
            why = error.strerror or error
            return f"{at}: {why} (gateway.host is an address of this machine; try: modelgrid serve --host 127.0.0.1)"


def _holder(port: int) -> str | None:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            at = connection.laddr
            if connection.status == psutil.CONN_LISTEN and at and at.port == port and connection.pid:
                return f"process {connection.pid} ({_program(psutil.Process(connection.pid))})"
    return None


def _program(process: psutil.Process) -> str:
    """What people know it by. Not its whole command line, which may hold secrets."""
    with contextlib.suppress(psutil.Error):
        if any("modelgrid" in word for word in process.cmdline()[:4]):
            return "another modelgrid"
    return process.name()


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

"""Programs that the benchmark starts: each in a session of its own, on cores of its own, and ended with it."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.gateway import proc

HOST = "127.0.0.1"
START_S = 60.0
_STOP_S = 5.0
_ANSWER_S = 10.0
_LINES_OF_LOG = 12
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """Something could not be built, started or measured; the text says what, why and what to do."""


class Program:
    """A program that runs."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        return proc.session_members(self._process.pid)

    def check(self) -> None:
        """Raises Failed, with the last lines of its log, when it has ended."""
        code = self._process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:]
            raise Failed(f"cannot go on with {self.name}: it ended with code {code}\n    " + "\n    ".join(lines))

    def wait(self, limit_s: float) -> int:
        """Its code, when it has ended by itself. Raises Failed."""
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"cannot go on with {self.name}: it has not ended in {limit_s:.0f} s") from None

    def stop(self) -> None:
        """End it, and all that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _STOP_S
            members = self._signal(number)
            while members and time.monotonic() < deadline:
                time.sleep(0.02)
                self._process.poll()
                members = self.pids
            if not members:
                break
        self._process.wait(_STOP_S)

    def _signal(self, number: signal.Signals) -> list[int]:
        members = self.pids
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return members


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    cores: frozenset[int],
    *,
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Program]:
    """A program, until the block ends. Its output is a log in `folder`."""
    log = folder / f"{name}.log"
    parent = os.getpid()

    def become() -> None:  # an interrupted benchmark leaves nobody behind, even when it was killed
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        os.sched_setaffinity(0, cores)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**_clean_environ(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=become,
        )
    program = Program(name, process, log)
    try:
        yield program
    finally:
        program.stop()


def wait_ready(
    programs: Sequence[Program], port: int, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> None:
    """Until a request is answered with 200. Raises Failed."""
    deadline = time.monotonic() + START_S
    last = "no connection"
    while time.monotonic() < deadline:
        for program in programs:
            program.check()
        try:
            status, content = ask(port, path, headers, body)
        except OSError as error:
            last = str(error)
        else:
            if status == 200:
                return
            last = f"{status} {content[:200]!r}"
        time.sleep(0.05)
    raise Failed(f"cannot start {programs[0].name}: no good answer in {START_S:.0f} s, the last was: {last}")


def ask(port: int, path: str, headers: Mapping[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    """One request. Raises OSError."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)
    try:
        connection.request("POST" if body is not None else "GET", path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from error
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _clean_environ() -> dict[str, str]:
    """Without settings of a shell that would reach into what is measured."""
    dropped = ("_proxy", "python", "modelgrid", "uv_", "virtual_env")
    return {name: value for name, value in os.environ.items() if not any(word in name.lower() for word in dropped)}

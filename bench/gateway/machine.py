"""The machine: its cores and who gets which, its limits, the tools of its distribution."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import nginx
from bench.gateway.processes import Failed

_PACKAGES = {"nginx": "nginx-light", "wrk": "wrk"}
_INSTALL_S = 300


@dataclass(frozen=True, slots=True)
class Split:
    """Which cores the callers and the upstream have, and which the measured ones."""

    all: tuple[int, ...]

    def proxies(self, workers: int) -> frozenset[int]:
        """One core for each worker, the last ones."""
        return frozenset(self.all[-workers:])

    def callers(self, workers: int) -> frozenset[int]:
        """The others; all, where none would be left."""
        return frozenset(self.all[:-workers]) or frozenset(self.all)


def cores() -> Split:
    """The cores that this process may use."""
    return Split(tuple(sorted(os.sched_getaffinity(0))))


def raise_file_limit() -> None:
    """A thousand streams are two thousand files, here and in what is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def stop_at_signals() -> None:
    """Whatever asks this process to end ends the block it is in, and with it all that was started."""

    def stop(number: int, frame: object) -> None:  # noqa: ARG001  signal calls it so
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(again, signal.SIG_IGN)  # the end itself is not interrupted
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def tools() -> None:
    """See that nginx and wrk are there; as root on Debian, install what is missing. Raises Failed."""
    missing = [name for name, path in (("nginx", nginx.binary()), ("wrk", "wrk")) if not shutil.which(path)]
    if not missing:
        return
    packages = [_PACKAGES[name] for name in missing]
    how = f"apt-get install --no-install-recommends {' '.join(packages)}"
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise Failed(f"cannot measure: {' and '.join(missing)} are missing (as root: {how})")
    sys.stderr.write(f"installing {', '.join(packages)} …\n")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            [apt, "-qq", *words], env=environ, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
        if done.returncode:
            raise Failed(f"cannot install {', '.join(packages)}: {done.stderr.strip()[-500:]} (as root: {how})")


def described() -> dict[str, object]:
    """For the record."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "wrk": _wrk_version(),
        "nginx": nginx.version(),
    }


def _wrk_version() -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    return said.partition("wrk ")[2].partition(" [")[0]

"""Controllers that stand by: as many as a test kills, each waiting for the one before it to be gone."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from e2e.daemon import Daemon, until
from modelgrid.config.paths import find_paths
from modelgrid.daemon.children import READY


@contextlib.contextmanager
def standbys(daemon: Daemon) -> Iterator[Relief]:
    """Three that stand by, and more when they are called; in the end the supervisor's own is in charge again."""
    (controller,) = daemon.controllers()
    lock = find_paths({"MODELGRID_HOME": str(daemon.home)}).run / "controller.lock"
    environ = {name: value for name, value in controller.environ().items() if name != READY}
    relief = Relief(daemon, controller.cmdline(), environ, lock.stat().st_ino)
    try:
        for _ in range(3):
            relief.call()
        yield relief
    finally:
        for child in relief.children:
            child.kill()
            child.wait()
        # What is left is the supervisor's own, which may pause for some seconds first.
        until("the supervisor's own is in charge", lambda: len(daemon.controllers()) == 1 and relief.in_charge())


@dataclass
class Relief:
    """Further controllers, started as the supervisor starts its own: they wait for its lock. So the next one goes on
    at once, where the supervisor would pause after a few deaths in a row."""

    daemon: Daemon
    argv: list[str]
    environ: dict[str, str]
    lock: int  # the lock file's inode
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def call(self) -> None:
        """Have one more stand by."""
        with (self.daemon.home / "standbys.out").open("ab") as out:
            self.children.append(
                subprocess.Popen(
                    self.argv,
                    env=self.environ,
                    cwd=self.daemon.home,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def in_charge(self) -> int | None:
        """The process that holds the lock."""
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and words[5].endswith(f":{self.lock}"):
                return int(words[4])
        return None

    def kill(self) -> None:
        """Kill who is in charge, and wait until another one is."""
        pid = until("a controller is in charge", self.in_charge)
        psutil.Process(pid).kill()
        until("another one is", lambda: self.in_charge() not in (None, pid))
        for child in self.children:
            child.poll()

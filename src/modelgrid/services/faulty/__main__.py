"""``python -m modelgrid.services.faulty``: serve until SIGTERM, or until a fault ends it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time

from modelgrid.services.faulty.ending import die, log
from modelgrid.services.faulty.memory import Memory
from modelgrid.services.faulty.options import parse_options
from modelgrid.services.faulty.server import Server

CHILD_LIFE_S = 600


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM, or until a fault ends it."""
    options = parse_options(argv)
    if options.port is None:
        die("no port was given (--port N, or MODELGRID_PORT)", 2)
    if options.refuse_stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log(f"starting {options.served} as process {os.getpid()}")
    die_at_start(options)
    memory = Memory(options.eat_memory)
    memory.take()
    if options.spawn_child:
        log(f"child process {spawn_child()}")
    time.sleep(options.start_delay)
    asyncio.run(Server(options, memory).serve())


def die_at_start(options: argparse.Namespace) -> None:
    """The faults that end the process before it listens."""
    if options.exit_at_start is not None:
        die(f"RuntimeError: told to exit at the start with code {options.exit_at_start}", options.exit_at_start)
    if options.crash_file and options.crash_file.exists():
        die(f"RuntimeError: told to crash while {options.crash_file} exists", 1)
    if options.crash_once_file and options.crash_once_file.exists():
        options.crash_once_file.unlink()
        die(f"RuntimeError: told to crash once by {options.crash_once_file}", 1)


def spawn_child() -> int:
    """A process in a session of its own, which outlives this one unless somebody cleans up. It ends by itself late."""
    program = f"import time; time.sleep({CHILD_LIFE_S})"
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL, start_new_session=True).pid


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

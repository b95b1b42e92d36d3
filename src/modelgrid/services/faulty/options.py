"""The arguments: what it serves, how the process as a whole fails, and every way to answer."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from modelgrid.services import faulty
from modelgrid.services.faulty import sleep, ways


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """The process's options; `served` is the name it goes by, `ways` how it answers."""
    options = _parser().parse_args(argv)
    options.served = options.model or "faulty"
    options.ways = ways.from_arguments(options)
    return options


def _parser() -> argparse.ArgumentParser:
    described = (faulty.__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="modelgrid.services.faulty", description=described)
    add = parser.add_argument
    port = os.environ.get("MODELGRID_PORT")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=int(port) if port else None, help="default: MODELGRID_PORT")
    add("--model", help="the only model that it answers for; any when absent")
    add("--key-from-env", action="store_true", help="ask for the bearer token MODELGRID_ENGINE_KEY, where it is set")
    add("--start-delay", type=float, default=0, metavar="S", help="open the port late")
    add("--health-delay", type=float, default=0, metavar="S", help="answer 503 to /health until then")
    add("--never-healthy", action="store_true", help="answer 503 to /health for ever")
    add("--hang-after", type=int, metavar="N", help="accept requests after N, and never answer them")
    add("--hang-health", action="store_true", help="then /health hangs as well")
    add("--error-after", type=int, metavar="N", help="answer 500 after N requests")
    add("--crash-after", type=int, metavar="N", help="die at the request after N, before a byte of an answer")
    add("--garbage-after", type=int, default=0, metavar="N", help="answer garbage after N requests (0)")
    add("--exit-at-start", type=int, metavar="CODE", help="say why and exit, before the port opens")
    add("--crash-file", type=Path, metavar="PATH", help="crash at the start while this file exists")
    add("--crash-once-file", type=Path, metavar="PATH", help="crash at the start if this file exists, and remove it")
    add("--refuse-stop", action="store_true", help="ignore SIGTERM")
    add("--stop-delay", type=float, default=0, metavar="S", help="take this long to stop")
    add("--at-once", type=int, metavar="N", help="wait (--delay) for so many answers at once; the others queue")
    add("--eat-memory", type=ways.size, default=0, metavar="SIZE", help="hold this much memory, e.g. 500MiB")
    add("--sleepable", action="store_true", help="sleep and wake as vLLM does; asleep the memory is given back")
    add("--sleep-delay", type=float, default=0, metavar="S", help="take this long to fall asleep")
    add("--wake-delay", type=float, default=0, metavar="S", help="take this long to wake")
    add(
        "--sleep-fault",
        choices=(*sleep.FAULTS, "lie"),
        help="when told to sleep: hang, error (500), lose (the answer), die, lie (say so, and keep the memory)",
    )
    add("--wake-fault", choices=sleep.FAULTS, help="when told to wake: hang, error, lose, die")
    add("--sleep-faults", type=int, default=1_000_000, metavar="N", help="so many times these faults hold")
    add("--eat-per-request", type=ways.size, default=0, metavar="SIZE", help="and this much more for each request")
    add("--spawn-child", action="store_true", help="start a child in a session of its own that must be cleaned up")
    ways.add_arguments(parser)
    return parser

"""``make bench-services``, or ``python -m bench.services --help``."""

from __future__ import annotations

import argparse
import sys

from bench.services.page import keep, table
from bench.services.run import run
from bench.services.subjects import SUBJECTS


def main() -> None:
    """Measure, and print."""
    options = _options()
    names = options.service.split(",") if options.service else list(SUBJECTS)
    if unknown := [name for name in names if name not in SUBJECTS]:
        sys.exit(f"cannot measure {', '.join(unknown)}: known are {', '.join(SUBJECTS)}")
    measured = [run(name, SUBJECTS[name], options.rounds, options.seconds, _tell) for name in names]
    sys.stderr.write("\r\033[K")
    sys.stdout.write("\n".join(table(measured)) + "\n")
    if options.keep:
        sys.stdout.write(f"kept in {keep(measured, options.rounds, options.seconds)}\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"\r\033[K{line}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-services",
        description="Services of ours beside the bare library, in the same environment: what one and sixteen callers "
        "get, and what the library alone makes one after the other and in batches.",
    )
    parser.add_argument("--service", metavar="NAMES", help=f"of {', '.join(SUBJECTS)}; all of them when absent")
    parser.add_argument("--rounds", type=int, default=5, help="each measures all four; the median counts (5)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each of the four (5)")
    parser.add_argument("--keep", action="store_true", help="keep the figures, and write them into the docs")
    return parser.parse_args()


if __name__ == "__main__":
    main()

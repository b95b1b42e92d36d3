"""``make bench-gateway``, or ``python -m bench.gateway --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.gateway.figures import FIGURES, GROUPS
from bench.gateway.machine import cores, raise_file_limit, stop_at_signals, tools
from bench.gateway.peers import peers
from bench.gateway.processes import Failed
from bench.gateway.publish import PAGE, keep, publish
from bench.gateway.run import Plan, run
from bench.gateway.table import drawn_table

QUICK_PEERS = "nginx,modelgrid"
QUICK_FIGURES = "cpu-300,cpu-heads,cpu-chunk"


def main() -> None:
    """Measure, and print."""
    options = _options()
    stop_at_signals()
    raise_file_limit()
    try:
        tools()
        chosen = peers(options.only.split(",") if options.only else None, options.source)
        plan = Plan(
            figures=_figures(options.figures),
            rounds=options.rounds,
            seconds=options.seconds,
            split=cores(),
            rate=options.rate,
        )
        results = run(plan, chosen)
    except Failed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; nothing is left behind")
    sys.stdout.write(drawn_table(results))
    if options.keep:
        path = keep(results.record)
        publish(path)
        sys.stdout.write(f"kept in {path}, and shown in {PAGE}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-gateway", description="What a gateway costs.")
    parser.add_argument("--only", metavar="PEERS", help="of the columns, separated by commas")
    parser.add_argument("--figures", metavar="FIGURES", help=f"of {', '.join([*GROUPS, *FIGURES])}")
    parser.add_argument("--rounds", type=int, help="how often each is measured; the median counts")
    parser.add_argument("--seconds", type=float, help="how long each load lasts")
    parser.add_argument("--rate", type=int, help="requests a second of the open loop (half a router's most)")
    parser.add_argument("--quick", action="store_true", help="nginx and modelgrid, one round")
    parser.add_argument("--source", type=Path, help="a checkout whose gateway is measured instead of this one")
    parser.add_argument("--keep", action="store_true", help="keep and publish the figures, as a whole run does")
    options = parser.parse_args()
    options.keep = options.keep or not (options.only or options.figures or options.quick or options.source)
    if options.quick:
        options.only = options.only or QUICK_PEERS
        options.figures = options.figures or QUICK_FIGURES
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (2.0 if options.quick else 4.0)
    return options


def _figures(text: str | None) -> tuple[str, ...]:
    if not text:
        return tuple(FIGURES)
    names = [name for word in text.split(",") for name in GROUPS.get(word, (word,))]
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise Failed(f"cannot measure {', '.join(unknown)}: known are {', '.join([*GROUPS, *FIGURES])}")
    return tuple(name for name in FIGURES if name in names)


main()

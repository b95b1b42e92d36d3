"""``make bench-autoscale``, or ``python -m bench.autoscale --help``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from bench.autoscale.compare import DELAYS, TARGETS, Compared, Point, compare
from bench.autoscale.draw import picture
from bench.autoscale.replica import Figures
from bench.autoscale.scenarios import Scenario, scenarios
from bench.autoscale.table import ahead, drawn_table, title
from bench.autoscale.trace import Trace

_ROOT = Path(__file__).parents[2]
_RECORDED = _ROOT.parent / "shared" / "data" / "azure-llm-2023-conv.csv"
_PICTURE = _ROOT / "docs" / "images" / "autoscale.svg"
_RESULTS = _ROOT / "bench" / "results"
_DRAWN = (  # one of each kind, those where others do better too
    "azure",
    "azure, 2 x as many",
    "azure, 4 x as fast",
    "azure, 8 x as fast",
    "waves",
    "steps",
    "bursts",
    "code",
)


def main() -> None:
    """Simulate, and print."""
    options = _options()
    if options.draw:
        _PICTURE.write_text(picture(drawn(kept())))
        return
    compared: list[Compared] = []
    try:
        for number, scenario in enumerate(scenarios(options.trace, tuple(options.other))):
            if options.quick and number >= 2 + 2 * len(options.other):
                break
            compared.append(compare(scenario))
            sys.stderr.write(f"{title(compared[-1])}\n")
    except (OSError, ValueError) as error:
        sys.exit(f"cannot compare: {error} (try: --trace FILE, a CSV with time, prompt tokens, answer tokens)")
    sys.stdout.write(drawn_table(compared) + "\n" + ahead(compared))
    if options.keep:
        path = _keep(compared)
        _PICTURE.write_text(picture(drawn(kept())))
        sys.stdout.write(f"kept in {path}, and drawn in {_PICTURE}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-autoscale", description="Autoscaling, in simulation.")
    parser.add_argument("--trace", type=Path, default=_RECORDED, help="the recorded hour that variants are made of")
    parser.add_argument("--other", type=Path, action="append", default=[], help="another recording; may be repeated")
    parser.add_argument("--quick", action="store_true", help="the recorded hour only")
    parser.add_argument("--keep", action="store_true", help="keep and draw the figures, as a whole run does")
    parser.add_argument("--draw", action="store_true", help="only draw anew what was kept last")
    options = parser.parse_args()
    options.keep = options.keep or not (options.quick or options.other or options.trace != _RECORDED)
    return options


def _keep(compared: Sequence[Compared]) -> Path:
    """Write a run to a file of its day. A later run of the same day replaces it."""
    record = {
        "date": date.today().isoformat(),
        "replica": asdict(Figures()),
        "targets": TARGETS,
        "delays": [dict(zip(("up_s", "down_s", "mean_s"), delays, strict=True)) for delays in DELAYS],
        "scenarios": [
            {
                "trace": one.scenario.trace.name,
                "requests": len(one.scenario.trace.requests),
                "load_s": one.scenario.load_s,
                "ttft_s": one.scenario.ttft_s,
                "points": [_rounded(asdict(point)) for point in one.points],
            }
            for one in compared
        ],
    }
    path = _RESULTS / f"autoscale-{record['date']}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def kept() -> list[Compared]:
    """The last run that was kept, but for its requests."""
    record = json.loads(max(_RESULTS.glob("autoscale-*.json")).read_text())
    return [
        Compared(
            Scenario(Trace(one["trace"], ()), one["load_s"], one["ttft_s"]),
            [Point(**point) for point in one["points"]],
        )
        for one in record["scenarios"]
    ]


def drawn(compared: Sequence[Compared]) -> list[Compared]:
    """What the picture shows of a run."""
    first = {one.scenario.trace.name: one for one in reversed(compared)}
    return [first[name] for name in _DRAWN if name in first]


def _rounded(point: dict[str, object]) -> dict[str, object]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in point.items()}


if __name__ == "__main__":
    main()

"""Keeps a run and shows it: ``python -m bench.gateway.publish RESULTS`` draws the picture and the table of the docs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gateway.draw import picture
from bench.gateway.figures import FIGURES
from bench.gateway.percentiles import median
from bench.gateway.table import cell

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "bench" / "results"
PAGE = _ROOT / "docs" / "reference" / "benchmarks.md"
PICTURE = _ROOT / "docs" / "images" / "gateway.svg"
_BEGIN = "<!-- made by bench/gateway/publish.py: begin -->"
_END = "<!-- made by bench/gateway/publish.py: end -->"


@dataclass(frozen=True, slots=True)
class Kept:
    """A run that was kept."""

    record: dict[str, Any]

    @property
    def peers(self) -> list[str]:
        """Its columns."""
        return list(self.record["columns"])

    @property
    def figures(self) -> list[str]:
        """Its rows."""
        return list(self.record["rows"])

    @property
    def failures(self) -> dict[str, str]:
        """Who failed, and why."""
        return dict(self.record["failures"])

    @property
    def notes(self) -> dict[str, str]:
        """What differs from one peer to the next."""
        return dict(self.record["notes"])

    def median(self, figure: str, peer: str) -> float | None:
        """The middle of the rounds."""
        return median(self.record["values"].get(figure, {}).get(peer, []))


def keep(record: dict[str, object]) -> Path:
    """Write a run to a file of its day. A later run of the same day replaces it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"gateway-{str(record['date'])[:10]}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return path


def publish(path: Path) -> None:
    """Draw the picture, and put the table into the page."""
    kept = Kept(json.loads(path.read_text()))
    PICTURE.write_text(picture(kept))
    PAGE.write_text(with_figures(PAGE.read_text(), page_figures(kept, path.name)))


def with_figures(page: str, figures: str) -> str:
    """The page, with what stands between its marks replaced."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError("cannot put figures into the page: its marks are missing")
    return f"{before}{_BEGIN}\n{figures}{_END}{after}"


def page_figures(kept: Kept, name: str) -> str:
    """What the page says of one run."""
    machine, plan = kept.record["machine"], kept.record["plan"]
    made = f"Python {machine['python']}{_build(kept)}"
    rate = plan["open_loop_rate"]  # of a run in which nothing was paced there is none
    paced = "" if rate is None else f"; the fixed rate was {rate:,.0f} requests a second"
    lines = [
        "",
        "![What a gateway costs](../images/gateway.svg)",
        "",
        f"{kept.record['date'][:10]}, {machine['processor']}, {machine['cores']} cores, kernel {machine['kernel']}, "
        f"{made}; the median of {plan['rounds']} rounds of {plan['seconds']:g} s{paced}. All of it: "
        f"[{name}](../../bench/results/{name}).",
        "",
        "| | " + " | ".join(f"{peer} {_version(kept, peer)}".strip() for peer in kept.peers) + " |",
        "| --- |" + " ---: |" * len(kept.peers),
    ]
    for figure in kept.figures:
        cells = (cell(kept, figure, peer) for peer in kept.peers)
        lines.append(f"| {FIGURES[figure].label}, {FIGURES[figure].unit} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"- {peer}: {note}" for peer, note in kept.notes.items()]
    lines += [f"- {peer} failed: {why.splitlines()[0]}" for peer, why in kept.failures.items()]
    return "\n".join(lines) + "\n"


def _build(kept: Kept) -> str:
    """Which of its two builds modelgrid was, where it was there."""
    configuration = kept.record["peers"].get("modelgrid", {}).get("configuration", {})
    compiled = configuration.get("compiled")
    return "" if compiled is None else f", modelgrid {'compiled' if compiled else 'not compiled'}"


def _version(kept: Kept, peer: str) -> str:
    return str(kept.record["peers"].get(peer, {}).get("version", ""))


if __name__ == "__main__":
    publish(Path(sys.argv[1]))

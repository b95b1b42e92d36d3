"""The reference page of the services' figures, from what was kept: ``python -m bench.services.page``."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from bench.services.run import CALLERS, Measured
from bench.services.subjects import SUBJECTS

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "bench" / "results"
PAGE = _ROOT / "docs" / "reference" / "services-benchmarks.md"


def keep(measured: Sequence[Measured], rounds: int, seconds: float) -> Path:
    """The figures as JSON, and the page made of them."""
    now = datetime.now().astimezone()
    record = {
        "date": now.isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "machine": platform.machine(),
        "rounds": rounds,
        "seconds": seconds,
        "measured": [asdict(row) for row in measured],
    }
    path = RESULTS / f"services-{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.write_text(page())
    return path


def page() -> str:
    """The page as it should be."""
    record = json.loads(max(RESULTS.glob("services-*.json")).read_text())
    return "\n".join([*_head(record), *table([Measured(**row) for row in record["measured"]]), "", *_foot(record), ""])


def table(measured: Sequence[Measured]) -> Iterator[str]:
    """Units a second, and the ratios."""
    many = f"{CALLERS} callers"
    columns = ("library, one by one", "library, in batches", "service, 1 caller", f"service, {many}")
    ratios = ("1 caller / library", f"{many} / 1 caller", f"{many} / library in batches")
    yield f"| a second | {' | '.join(columns)} | {' | '.join(ratios)} |"
    yield "| --- |" + " ---: |" * (len(columns) + len(ratios))
    for row in measured:
        figures = (row.bare_one, row.bare_batch, row.one_caller, row.many_callers)
        shown = [f"{figure:,.1f}" for figure in figures]
        shown += [f"{ratio:.2f}" for ratio in (row.overhead, row.gain, row.share)]
        yield f"| {row.name}: {SUBJECTS[row.name].unit} | {' | '.join(shown)} |"


def _head(record: dict[str, Any]) -> Iterator[str]:
    yield "<!-- made by bench/services/page.py -->"
    yield ""
    yield "# What the services cost and gain"
    yield ""
    yield f"`make bench-services ARGS=--keep`, {record['date'][:10]}: each service of modelgrid beside the library"
    yield "that it stands on, called without it in the same environment. The first ratio says what a request costs a"
    yield "lone caller: HTTP, checks, counted tokens, and an answer written as OpenAI has it. Requests that wait while"
    yield "the model computes are computed together next: the second says what that is worth to many callers."
    yield ""


def _foot(record: dict[str, Any]) -> Iterator[str]:
    yield f"On {record['cores']} cores of {record['machine']}, without a GPU, callers on the same cores; the median"
    yield f"of {record['rounds']} rounds of {record['seconds']:g} s. Models this small show the cost at its largest: it"
    yield "does not grow with the model."
    yield ""
    for row in record["measured"]:
        subject = SUBJECTS[row["name"]]
        yield f"- **{row['name']}**: {subject.told}; the library's batches are of {subject.batch}."


if __name__ == "__main__":
    PAGE.write_text(page())

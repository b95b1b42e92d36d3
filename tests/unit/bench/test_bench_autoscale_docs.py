"""What the docs say of autoscaling is what was kept."""

from __future__ import annotations

from pathlib import Path

from bench.autoscale.__main__ import drawn, kept
from bench.autoscale.draw import picture
from bench.autoscale.table import ahead

DOCS = Path(__file__).parents[3] / "docs"


def test_the_picture_is_of_what_was_kept() -> None:
    assert (DOCS / "images" / "autoscale.svg").read_text() == picture(drawn(kept())), (
        "run: python -m bench.autoscale --draw"
    )


def test_the_page_says_how_often_it_was_ahead() -> None:
    page = (DOCS / "explanation" / "autoscaling.md").read_text()
    as_good, met = (line.rpartition(": ")[2] for line in ahead(kept()).splitlines())
    assert f"fewer GPU-hours in **{as_good}**" in page
    assert f"\n  **{met}**" in page

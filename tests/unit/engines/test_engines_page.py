"""The reference page of the engines says what they launch, and misses none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelgrid.config import load_text
from modelgrid.engines import ENGINES
from modelgrid.engines.page import example, reference, shown

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "engines.md"


def test_the_page_is_current() -> None:
    step = "run: .venv/bin/python -m modelgrid.engines.page > docs/reference/engines.md"
    assert PAGE.read_text(encoding="utf-8") == reference(), step


def test_every_engine_of_ours_has_its_line_and_its_section() -> None:
    page = reference()
    for name in ENGINES.own:
        assert f"\n| [`{name}`](#{name}) | " in page
        assert f"\n## `{name}`\n" in page


@pytest.mark.parametrize("name", ENGINES.own)
def test_what_the_page_shows_is_a_configuration(name: str) -> None:
    engine = ENGINES[name]
    (model,) = load_text(shown(engine), path=None, environ={}).models
    assert (model.engine, model.source, model.command, model.urls or model.url) == (
        name,
        example(engine).source,
        example(engine).command,
        example(engine).url,
    )


def test_no_secret_and_no_line_of_prose_that_is_too_long() -> None:
    page = reference()
    assert "KEY" not in page
    assert [line for line in page.splitlines() if len(line) > 120 and not line.startswith("|")] == []
    assert re.search(r"\| \[`vllm`\].* \| CPUs, GPUs \| on GPUs \| yes \| `/metrics` \|", page)
    assert re.search(r"\| \[`sglang`\].* \| GPUs \|  \|  \| `/metrics` \|", page)
    assert re.search(r"\| \[`custom`\].* \| CPUs, GPUs \| where it can \| yes \|", page)

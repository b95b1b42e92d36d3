"""The schema for editors and the reference page say what the loader does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from modelgrid.config import default_text, reference, schema, starter_text
from modelgrid.engines import ENGINES

ROOT = Path(__file__).parents[3]


def fields(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, section in {"": node, **node["$defs"]}.items():
        for field, said in section["properties"].items():
            yield f"{name}.{field}", said


def test_every_field_is_described() -> None:
    assert [name for name, said in fields(schema()) if not said.get("description")] == []


def test_the_schema_is_json_of_the_draft_that_editors_know() -> None:
    assert json.loads(json.dumps(schema()))["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_unknown_fields_are_errors_in_editors_too() -> None:
    made = schema()
    assert [name for name, section in {"": made, **made["$defs"]}.items() if section["additionalProperties"]] == []


def test_editors_know_the_engines() -> None:
    engine = schema()["$defs"]["ModelSection"]["properties"]["engine"]
    assert engine["anyOf"][0]["enum"] == list(ENGINES)


def test_texts_that_come_along_use_fields_that_the_schema_has() -> None:
    made = schema()["$defs"]["ModelSection"]["properties"]
    for text in (default_text(True), default_text(False), starter_text()):
        for model in yaml.safe_load(text)["models"].values():
            assert set(model) <= set(made)


def test_the_reference_page_is_current() -> None:
    page = ROOT / "docs/reference/configuration.md"
    step = "run: .venv/bin/python -m modelgrid.config.page > docs/reference/configuration.md"
    assert page.read_text() == reference(), step


def test_every_public_name_is_what_it_says_also_when_all_modules_are_loaded() -> None:
    import modelgrid.config.load
    import modelgrid.config.page

    for name in modelgrid.config.__all__:
        assert callable(getattr(modelgrid.config, name)), name


def test_paths_cost_no_schema() -> None:
    code = "import sys, modelgrid.config.paths; sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

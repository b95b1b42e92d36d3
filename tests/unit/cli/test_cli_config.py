"""The configuration's commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from modelgrid.config.paths import Paths

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_init_writes_a_file_that_is_fine_and_never_replaces_one_unasked(run: Run, paths: Paths) -> None:
    first = run("config", "init")
    assert first.stdout.startswith(f"wrote {paths.config_file}\n")
    assert run("config", "check").stdout.startswith(f"{paths.config_file} is fine: ")
    paths.config_file.write_text("models: {}\n")
    again = run("config", "init")
    assert (again.returncode, paths.config_file.read_text()) == (1, "models: {}\n")
    assert "there is one (keep it, or replace it with --force)" in again.stderr
    assert run("config", "init", "--force").returncode == 0
    assert paths.config_file.read_text() != "models: {}\n"


def test_init_that_cannot_write_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("config", "init", "--config", "file/modelgrid.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot write file/modelgrid.yaml: ")


def test_check_tells_everything_that_is_wrong_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modelgrid.yaml").write_text("models:\n  a: {engine: vlm}\n  b: {engine: vllm, sorce: x/y}\n")
    done = run("config", "check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: cannot use the configuration:\nmodelgrid.yaml:2:")
    assert "'vlm' is not an engine" in done.stderr
    assert "modelgrid.yaml:3:" in done.stderr


def test_a_named_file_that_is_not_there_is_an_error(run: Run) -> None:
    done = run("config", "check", "--config", "none.yaml")
    assert done.returncode == 1
    assert "none.yaml" in done.stderr


def test_show_masks_secrets_and_names_its_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "modelgrid.yaml"
    path.write_text("models:\n  a: {engine: remote, url: http://127.0.0.1:1/v1, key: '${A_KEY}'}\n")
    done = run("config", "show", A_KEY="canary-secret")
    assert done.stdout.startswith(f"# {path}\n")
    assert "canary-secret" not in done.stdout + done.stderr
    assert "key: '********'" in done.stdout


def test_without_a_file_the_built_in_default_is_shown(run: Run) -> None:
    done = run("config", "show")
    assert done.stdout.startswith("# the built-in default")
    assert "stand-in" in done.stdout


def test_the_schema_is_json(run: Run) -> None:
    assert "models" in json.loads(run("config", "schema").stdout)["properties"]

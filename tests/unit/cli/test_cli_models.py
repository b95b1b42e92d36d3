"""The models' commands: what is configured, and the weights on the disk."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hubs import serving_hub
from modelgrid.api.fake import FakeControl
from modelgrid.config.paths import Paths
from modelgrid.spec import ModelStatus, ReplicaStatus
from weight_files import safetensors

Run = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
models:
  tiny: {engine: vllm, source: owner/tiny, aliases: [gpt-4o-mini], needs: {memory: 1GiB}}
  mine: {engine: custom, command: [serve, "{port}"], needs: {memory: 1GiB}}
"""
WEIGHTS = b"w" * 3000


@pytest.fixture
def hub() -> Iterator[dict[str, str]]:
    """The environment that leads to a hub with one model."""
    with serving_hub() as hub:
        hub.models["owner/tiny"] = {"config.json": b"{}", "model.safetensors": WEIGHTS}
        yield hub.environ


@pytest.fixture
def configured(tmp_path: Path) -> None:
    (tmp_path / "modelgrid.yaml").write_text(CONFIG)


def rows(text: str) -> list[list[str]]:
    """The words of each line, of the first table."""
    return [line.split() for line in text.partition("\n\n")[0].splitlines()]


@pytest.mark.usefixtures("configured")
def test_models_are_listed_without_a_daemon(run: Run) -> None:
    assert rows(run("model", "list").stdout) == [
        ["MODEL", "ENGINE", "KIND", "STATE", "DISK", "MEMORY", "ALIASES", "SOURCE"],
        ["tiny", "vllm", "text", "-", "not", "pulled", "1.0", "GiB", "gpt-4o-mini", "owner/tiny"],
        ["mine", "custom", "any", "-", "-", "1.0", "GiB", "-", "-"],
    ]


def test_a_virtual_model_is_listed_and_has_no_weights(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modelgrid.yaml").write_text(CONFIG + "virtual: {smart: {models: [tiny, mine], aliases: [gpt-4o]}}\n")
    assert rows(run("model", "list").stdout)[-1] == [
        *("smart", "virtual", "any", "-", "-", "-", "gpt-4o", "tiny,", "mine")
    ]
    pulled = run("model", "pull", "gpt-4o")
    assert (pulled.returncode, pulled.stderr) == (
        1,
        "Error: cannot find weights of gpt-4o: it is virtual (name one of the models behind it: tiny, mine)\n",
    )


@pytest.mark.usefixtures("configured")
def test_models_are_listed_with_their_state_while_modelgrid_runs(run: Run, control: FakeControl) -> None:
    assert [row[3] for row in rows(run("model", "list").stdout)[1:]] == ["-", "ready"]
    listed = json.loads(run("model", "list", "--json").stdout)
    assert [(model["name"], model["state"]) for model in listed["models"]] == [("tiny", None), ("mine", "ready")]
    assert listed["unused"] == []


@pytest.mark.usefixtures("configured")
def test_weights_are_pulled_listed_and_removed_by_the_models_name(run: Run, hub: dict[str, str], paths: Paths) -> None:
    pulled = run("model", "pull", "gpt-4o-mini", **hub)
    folder = paths.models / "owner" / "tiny"
    assert (pulled.returncode, pulled.stdout) == (0, f"owner/tiny is at {folder}\n"), pulled.stderr
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (tiny, _) = json.loads(run("model", "list", "--json").stdout)["models"]
    assert (tiny["weights_path"], tiny["weights_bytes"] > 3000) == (str(folder), True)
    removed = run("model", "remove", "tiny")
    assert removed.stdout.startswith("removed owner/tiny: ")
    assert not folder.exists()


@pytest.mark.usefixtures("configured")
def test_weights_that_no_model_uses_are_listed_apart(run: Run, hub: dict[str, str], tmp_path: Path) -> None:
    run("model", "pull", "owner/tiny", **hub)
    (tmp_path / "modelgrid.yaml").write_text("models: {}\n")
    shown = run("model", "list").stdout
    assert "pulled, and used by no model" in shown
    assert re.search(r"^owner/tiny +3.0 KiB +/", shown, re.MULTILINE)


@pytest.mark.usefixtures("configured")
def test_weights_that_a_replica_runs_on_are_not_removed(
    run: Run, hub: dict[str, str], control: FakeControl, model: ModelStatus, replica: ReplicaStatus, paths: Paths
) -> None:
    run("model", "pull", "tiny", **hub)
    control.show(replace(model, name="tiny", source="owner/tiny"), replicas=(replace(replica, model="tiny"),))
    refused = run("model", "remove", "tiny")
    assert refused.returncode == 1
    assert "cannot remove owner/tiny: tiny runs on it (try: modelgrid model unload tiny" in refused.stderr
    assert (paths.models / "owner" / "tiny").exists()
    forced = run("model", "remove", "tiny", "--force")
    assert forced.stdout == (
        "removed owner/tiny: 3.0 KiB are free again, as soon as tiny is unloaded, which keeps its files open "
        "(its next start pulls them again)\n"
    )
    assert not (paths.models / "owner").exists()


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pull", "mine"], "a model of engine custom has none of its own"),
        (["pull", "tony"], "neither configured (did you mean 'tiny'?) nor a hub id (OWNER/NAME)"),
        (["remove", "owner/tiny"], "cannot remove owner/tiny: it is not there"),
        (["pull", "owner/nothing"], "has no such model"),
        (["pull", "a/b/c:d"], "cannot pull a/b/c:d: it is not the id of a model on a hub (write OWNER/NAME, "),
        (["pull", "ollama:"], "cannot pull ollama:: it is not the id of a model on a hub"),
        (["pull", "/" + "a" * 300], "there is nothing at this path"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, hub: dict[str, str], words: list[str], says: str) -> None:
    done = run("model", *words, **hub)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


def test_what_needs_no_pull_is_said(run: Run) -> None:
    done = run("model", "pull", "stand-in")
    assert (done.returncode, done.stdout) == (
        0,
        "stand-in needs no pull: its source is stand-in, which is made on the spot\n",
    )


def test_a_folder_without_weights_is_not_called_missing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "modelgrid.yaml").write_text(
        "models: {here: {engine: vllm, source: ./empty}, gone: {engine: vllm, source: ./gone}}\n"
    )
    assert [row[4:6] for row in rows(run("model", "list").stdout)[1:]] == [["no", "weights"], ["missing", "?"]]


def test_a_path_is_told_by_what_lies_there(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors({"a": ("BF16", [1000, 2000])}, b"x" * 4_000_000))
    (tmp_path / "modelgrid.yaml").write_text("models: {here: {engine: vllm, source: ./mine}}\n")
    told = f"{folder} needs no pull: it has 3.8 MiB of safetensors weights, 2.0 million parameters, BF16\n"
    for name in ("./mine", "here", str(folder)):
        assert run("model", "pull", name).stdout == told
    (here,) = json.loads(run("model", "list", "--json").stdout)["models"]
    size = (folder / "model.safetensors").stat().st_size
    assert (here["is_here"], here["weights_path"], here["weights_bytes"]) == (True, str(folder), size)
    assert (here["memory_basis"], here["memory_bytes"] > size, here["kinds"]) == ("estimated", True, ["text"])
    refused = run("model", "remove", "./mine")
    assert "its files are not ours to delete" in refused.stderr
    (folder / "model.safetensors").unlink()
    empty = run("model", "pull", "here")
    assert (empty.returncode, f"cannot load {folder}: it holds no weights" in empty.stderr) == (1, True)

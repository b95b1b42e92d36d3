"""Weights come by the real commands, from a hub and a registry on loopback: whole or not at all."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.daemon import Daemon, faulty, free_port, until
from hubs import GGUF_LAYER, Hub, serving_hub
from modelgrid.config import load_text
from weight_files import safetensors

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "pull-models.md"
WEIGHTS = safetensors({"a": ("BF16", [1000, 1000])}, b"w" * 6_000_000)  # pieces of it are written
CONFIG = b'{"model_type": "qwen2"}'


def model_of(weights: bytes) -> dict[str, bytes]:
    return {"config.json": CONFIG, "model.safetensors": weights, "pytorch_model.bin": weights, "README.md": b"about"}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving_hub() as hub:
        for name in ("owner/asked", "owner/resumed", "owner/shared", "owner/stopped", "owner/closed"):
            hub.models[name] = model_of(WEIGHTS)
        hub.models["Qwen/Qwen2.5-0.5B-Instruct"] = model_of(WEIGHTS)
        hub.models["Qwen/Qwen2.5-0.5B-Instruct-GGUF"] = {
            f"qwen2.5-0.5b-instruct-{quant}.gguf": b"GGUF" + quant.encode() * 1000
            for quant in ("q2_k", "q4_k_m", "q8_0")
        }
        hub.tags["library/llama3.2:1b"] = [(GGUF_LAYER, b"GGUF" * 1000), ("application/config", b"{}")]
        yield hub


@pytest.fixture(scope="module")
def daemon(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One that serves a model whose weights are at the hub."""
    models = {"asked": faulty(source="owner/asked", aliases=["gpt-4o"]), "idle": faulty(source="owner/stopped")}
    config: dict[str, Any] = {"gateway": {"port": free_port()}, "machine": {"memory": "1GiB"}, "models": models}
    home = tmp_path_factory.mktemp("pulling")
    made = Daemon(home, config, {**hub.environ, "HF_HOME": str(home / "hub")})
    try:
        yield made.start()
    finally:
        made.end()


def models_of(daemon: Daemon) -> Path:
    return daemon.home / "data" / "models"


def until_begun(daemon: Daemon, source: str) -> Path:
    """What is here of the large file of a model, once the hub holds back the rest."""
    parts = models_of(daemon) / source / ".parts"

    def part() -> Path | None:
        return next((found for found in parts.glob("*/model.safetensors.part") if found.stat().st_size), None)

    return until(f"{source} is being pulled", part)


def listed(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.run("model", "list", "--json").stdout)
    return found


def unused(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {one["source"]: one for one in listed(daemon)["unused"]}


@pytest.fixture
def held_hub(hub: Hub) -> Iterator[Hub]:
    """It sends half of a large file, and the rest when it is told to."""
    hub.hold = threading.Event()
    hub.asked.clear()
    yield hub
    hub.hold.set()
    hub.hold = None


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_pull_that_was_ended_is_resumed_where_it_was(daemon: Daemon, held_hub: Hub, sent: signal.Signals) -> None:
    source = "owner/resumed" if sent is signal.SIGKILL else "owner/stopped"
    pulling = daemon.begin("model", "pull", source)
    part = until_begun(daemon, source)
    pulling.send_signal(sent)
    _, said = pulling.communicate(timeout=30)
    if sent is signal.SIGINT:
        assert (pulling.returncode, said.splitlines()[-1]) == (
            1,
            f"Error: stopped pulling {source} (the same command resumes it)",
        )
    begun_bytes = part.stat().st_size
    entry = unused(daemon).get(source) or next(one for one in listed(daemon)["models"] if one["source"] == source)
    assert entry.get("is_whole", entry.get("is_here")) is False
    assert held_hub.hold is not None
    held_hub.hold.set()
    held_hub.asked.clear()
    done = daemon.run("model", "pull", source)
    folder = models_of(daemon) / source
    assert (done.returncode, done.stdout) == (0, f"{source} is at {folder}\n"), done.stderr
    (asked,) = [
        asked for _, path, asked in held_hub.asked if path.startswith(f"/{source}/") and path.endswith(".safetensors")
    ]
    assert asked == f"bytes={begun_bytes}-"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "pytorch_model.bin").exists()


def test_two_pulls_at_once_fetch_once(daemon: Daemon, held_hub: Hub) -> None:
    first = daemon.begin("model", "pull", "owner/shared")
    until_begun(daemon, "owner/shared")
    second = daemon.begin("model", "pull", "owner/shared")
    assert second.stderr is not None
    assert second.stderr.readline() == "owner/shared: another process is pulling it\n"
    refused = daemon.run("model", "remove", "owner/shared")
    assert "cannot remove owner/shared: it is being pulled now" in refused.stderr
    assert held_hub.hold is not None
    held_hub.hold.set()
    told = f"owner/shared is at {models_of(daemon) / 'owner' / 'shared'}\n"
    assert [pulling.communicate(timeout=30)[0] for pulling in (first, second)] == [told, told]
    assert held_hub.files_asked().count("model.safetensors") == 1


def test_a_gated_model_needs_a_token(daemon: Daemon, hub: Hub) -> None:
    hub.gated.add("owner/closed")
    refused = daemon.run("model", "pull", "owner/closed")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot pull owner/closed: it is gated, and HF_TOKEN is not set (accept its licence at" in refused.stderr
    assert "owner/closed" not in unused(daemon)
    daemon.environ["HF_TOKEN"] = "good"
    try:
        assert daemon.run("model", "pull", "owner/closed").returncode == 0
    finally:
        del daemon.environ["HF_TOKEN"]


def test_a_file_that_changed_on_its_way_is_not_kept(daemon: Daemon, hub: Hub) -> None:
    hub.models["owner/wrong"] = model_of(WEIGHTS + b"1")
    hub.claimed_sha256["model.safetensors"] = "0" * 64
    try:
        done = daemon.run("model", "pull", "owner/wrong")
    finally:
        hub.claimed_sha256.clear()
    assert (done.returncode, "its content is not what the hub says" in done.stderr) == (1, True)
    assert not (models_of(daemon) / "owner" / "wrong" / "model.safetensors").exists()
    assert daemon.run("model", "pull", "owner/wrong").returncode == 0


def test_what_is_asked_for_is_pulled_and_stays_while_it_runs(daemon: Daemon, hub: Hub) -> None:
    assert daemon.chat("gpt-4o").status_code == 200
    folder = models_of(daemon) / "owner" / "asked"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    asked = next(model for model in listed(daemon)["models"] if model["name"] == "asked")
    assert (asked["state"], asked["is_here"], asked["weights_path"], asked["memory_basis"]) == (
        *("ready", True, str(folder)),
        "configured",
    )
    assert asked["weights_bytes"] >= len(WEIGHTS)
    refused = daemon.run("model", "remove", "asked")
    assert (refused.returncode, folder.exists()) == (1, True)
    assert "cannot remove owner/asked: asked runs on it (try: modelgrid model unload asked" in refused.stderr
    forced = daemon.run("model", "remove", "asked", "--force")
    assert re.fullmatch(
        r"removed owner/asked: \S+ MiB are free again, as soon as asked is unloaded, .*\n", forced.stdout
    )
    assert not folder.exists()
    assert daemon.chat("asked").status_code == 200  # what it has open it keeps


def commands() -> list[str]:
    """The lines that the page shows, in its order."""
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_page_works_as_it_is_written(daemon: Daemon) -> None:
    said = {}
    for line in commands():
        program, *words = line.split()
        assert program == "modelgrid"
        done = daemon.run(*words)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        said[line] = done.stdout
    models = models_of(daemon)
    names = {"q4_k_m": "Q4_K_M", "q8_0": "qwen2.5-0.5b-instruct-q8_0.gguf"}
    for quant, pick in names.items():
        file = f"qwen2.5-0.5b-instruct-{quant}.gguf"
        source = f"Qwen/Qwen2.5-0.5B-Instruct-GGUF:{pick}"
        assert said[f"modelgrid model pull {source}"].endswith(f"-GGUF--{pick}/{file}\n")
    assert said["modelgrid model pull ollama:llama3.2:1b"] == f"ollama:llama3.2:1b is at {models / '.ollama'}\n"
    shown = json.loads(said["modelgrid model list --json"])
    assert {"ollama:llama3.2:1b", "Qwen/Qwen2.5-0.5B-Instruct"} <= {one["source"] for one in shown["unused"]}
    assert said["modelgrid model remove ollama:llama3.2:1b"] == "removed ollama:llama3.2:1b: 3.9 KiB are free again\n"


def test_a_hub_is_asked_for_models_only(daemon: Daemon, hub: Hub) -> None:
    hub.asked.clear()
    daemon.run("model", "pull", "owner/few")
    assert {path for _, path, _ in hub.asked} == {"/api/models/owner/few"}


def test_what_the_page_configures_is_a_configuration() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    config = load_text(block, path=None, environ={})
    assert [spec.source for spec in config.models] == [
        model["source"] for model in yaml.safe_load(block)["models"].values()
    ]


def test_what_is_here_is_listed_and_pulled_without_the_hub(daemon: Daemon, hub: Hub) -> None:
    daemon.run("model", "pull", "owner/shared")
    hub.asked.clear()
    done = daemon.run("model", "pull", "owner/shared")
    assert done.stdout == f"owner/shared is at {models_of(daemon) / 'owner' / 'shared'} already\n"
    daemon.run("model", "list")
    assert hub.asked == []

"""One name over several models works as its how-to is written: its files are taken from the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from modelgrid.config import load_text

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "virtual-models.md"
BLOCKS: list[str] = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
BEST, SHARE, PARAMETERS = (yaml.safe_load(block) for block in BLOCKS)


def on_test_engines(models: dict[str, Any]) -> dict[str, Any]:
    """What the page says of its models, on engines that start in no time."""
    kept = [{k: v for k, v in model.items() if k not in ("engine", "source")} for model in models.values()]
    return {name: faulty(**fields) for name, fields in zip(models, kept, strict=True)}


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> Daemon:
    made = make_daemon(on_test_engines(BEST["models"]))
    made.config["virtual"] = BEST["virtual"]
    made.start()
    made.until_state("qwen-72b", "ready")
    return made


def asked(daemon: Daemon, model: str, **more: Any) -> dict[str, Any]:
    """What an engine received of a chat."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
    with daemon.client(headers={"x-faulty": "echo"}) as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = json.loads(answer.json()["body"])
    return received


@pytest.mark.parametrize("block", BLOCKS)
def test_what_the_page_shows_is_a_configuration(block: str) -> None:
    text = yaml.safe_dump({"models": BEST["models"], **yaml.safe_load(block)})
    assert load_text(text, path=None, environ={}).models


def test_the_best_one_that_is_up_serves(daemon: Daemon) -> None:
    assert asked(daemon, "gpt-4o", max_tokens=4000) == {
        "model": "qwen-72b",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4000,
    }
    assert asked(daemon, "qwen-7b", max_tokens=4000)["max_tokens"] == 4000  # by its own name
    assert daemon.run("model", "unload", "qwen-72b").returncode == 0
    until("qwen-72b is gone", lambda: not daemon.replicas("qwen-72b"))
    received = asked(daemon, "smart", max_tokens=4000)
    assert (received["model"], received["max_tokens"]) == ("qwen-7b", 512)
    assert daemon.replicas("qwen-72b") == []


def test_a_share_goes_to_the_new_model_once_the_file_is_saved(daemon: Daemon) -> None:
    daemon.write({**daemon.config, **SHARE})
    until("a request reaches qwen-7b", lambda: asked(daemon, "smart")["model"] == "qwen-7b")
    assert "qwen-72b" in [asked(daemon, "smart")["model"] for _ in range(50)]


def test_what_is_behind_a_name_is_seen(daemon: Daemon) -> None:
    asked(daemon, "smart")
    shown = re.findall(r"^```console\n\$ modelgrid why smart\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    expected = [line.replace("ready          2", "ready          0").split() for line in shown.splitlines()]

    def rows() -> list[list[str]]:
        return [line.split() for line in daemon.run("why", "smart").stdout.splitlines()]

    until("what is in flight is known, and none of it is left", lambda: rows() == expected)
    with daemon.client() as client:
        [smart] = [model for model in client.get("/v1/models").json()["data"] if model["id"] == "smart"]
    assert (smart["state"], smart["models"]) == ("ready", ["qwen-72b", "qwen-7b"])
    refused = daemon.run("model", "load", "smart")
    assert "load one of the models behind it: qwen-72b, qwen-7b" in refused.stderr


def test_a_key_may_be_good_for_the_name_only(daemon: Daemon) -> None:
    key = daemon.run("key", "create", "team", "--models", "gpt-4o").stdout.strip()
    body = {"messages": [{"role": "user", "content": "Hello"}]}

    def status(model: str) -> int:
        with daemon.client(headers={"authorization": f"Bearer {key}"}) as client:
            return client.post("/v1/chat/completions", json={"model": model, **body}).status_code

    until("the key is known, and is not good for the model", lambda: status("qwen-72b") in (403, 404))
    assert [status("smart"), status("gpt-4o")] == [200, 200]


def test_parameters_change_what_they_name(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(on_test_engines(PARAMETERS["models"])).start()
    sent = {"logit_bias": {"5": 1}, "seed": 7, "max_tokens": 5000, "odd": [1.10]}
    received = asked(daemon, "qwen-7b", **sent)
    assert {name: value for name, value in received.items() if name not in ("model", "messages")} == {
        **{"seed": 1, "max_tokens": 1024, "odd": [1.1], "temperature": 0.7}
    }
    assert asked(daemon, "qwen-7b", temperature=0)["temperature"] == 0

"""The how-to works as it is written: its files are taken from the page."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from e2e.conftest import MakeDaemon
from e2e.daemon import free_port

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-model.md"


def block(language: str, number: int = 0) -> str:
    """One of the page's code blocks."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return found[number]


def test_adding_a_model_takes_three_steps(make_daemon: MakeDaemon) -> None:
    models = yaml.safe_load(block("yaml"))["models"]
    models["echo"]["port"] = free_port()
    daemon = make_daemon(models)
    folder = daemon.home / "echo"
    folder.mkdir(parents=True)
    (folder / "server.py").write_text(block("python"))
    (folder / "requirements.txt").write_text(block("text"))
    daemon.start()
    answer = daemon.chat("echo", "Hello")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "you said: Hello"
    assert daemon.replicas("echo")[0].url == f"http://127.0.0.1:{models['echo']['port']}/v1"

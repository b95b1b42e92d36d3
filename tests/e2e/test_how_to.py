"""The how-to works as it is written: its files are taken from the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, free_port, until
from modelgrid.runtimes.pip_settings import read_pip_settings
from packages import install, wheel

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-model.md"


def block(language: str, number: int = 0) -> str:
    """One of the page's code blocks."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return found[number]


def three_steps(make_daemon: MakeDaemon) -> Daemon:
    daemon = make_daemon(yaml.safe_load(block("yaml"))["models"])
    folder = daemon.home / "titles"
    folder.mkdir(parents=True)
    (folder / "server.py").write_text(block("python"))
    (folder / "requirements.txt").write_text(block("text"))
    return daemon.start()


def asked() -> dict[str, Any]:
    """What the page's curl sends."""
    words = shlex.split(block("console").removeprefix("$ "))
    body: dict[str, Any] = yaml.safe_load(words[words.index("-d") + 1])
    return body


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_adding_a_model_takes_three_steps(make_daemon: MakeDaemon) -> None:
    daemon = three_steps(make_daemon)
    with daemon.client() as client:
        assert text_of(client.post("/v1/chat/completions", json=asked())) == "A Model Of My Own"
        nothing = client.post("/v1/chat/completions", json={**asked(), "messages": []})
        wrong = client.post("/v1/chat/completions", json={**asked(), "messages": [{"role": "user"}]})
    assert (nothing.status_code, nothing.json()["error"]["param"]) == (400, "messages")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "content" in wrong.json()["error"]["param"]

    # The same program alone, as the page says, in a Python that has its requirements.
    python = psutil.Process(daemon.replicas("titles")[0].pid).cmdline()[0]
    port = free_port()
    alone = subprocess.Popen(
        [python, "titles/server.py", "--port", str(port)], cwd=daemon.home, stderr=subprocess.DEVNULL
    )
    try:
        until("it is healthy", lambda: is_healthy(port))
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        assert text_of(httpx.post(url, json=asked(), trust_env=False)) == "A Model Of My Own"
        alone.terminate()
        assert alone.wait(30) == 0
    finally:
        alone.kill()


def test_a_command_of_ones_own_is_a_configuration(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon(yaml.safe_load(block("yaml", 1))["models"])
    daemon.write(daemon.config)
    checked = daemon.run("config", "check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_package_brings_its_engine_and_its_service(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    project = tomllib.loads(block("toml"))["project"]
    modules = {"__init__": "", "engine": block("python", 1), "server": block("python")}
    package = tmp_path / "site" / "titles"
    package.mkdir(parents=True)
    for name, source in modules.items():
        (package / f"{name}.py").write_text(source)
    install(package.parent, project["name"], {}, project["entry-points"]["modelgrid.engines"], project["version"])
    wheel(tmp_path, project["name"], modules, project["version"])  # for the service's own environment
    links = ",".join((str(tmp_path), *read_pip_settings().find_links))  # what is told replaces what pip is told
    daemon = make_daemon(
        {"titles": {"engine": "titles", "source": str(tmp_path), "needs": {"memory": "300MiB"}}},
        environ={"PYTHONPATH": str(package.parent), "UV_FIND_LINKS": links},
    )
    daemon.start()
    with daemon.client() as client:
        assert text_of(client.post("/v1/chat/completions", json=asked())) == "A Model Of My Own"

    (package / "engine.py").write_text("import no_such_library")
    broken = daemon.run("config", "check")
    assert broken.returncode == 1
    assert "engine: cannot load titles of the package titles 1.0: ModuleNotFoundError" in broken.stderr


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False

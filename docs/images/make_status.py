"""Makes status.svg: the real status table of a real daemon, with the test engine as its models.

python docs/images/make_status.py
"""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import yaml
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from modelgrid.cli.picture import picture
from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config.paths import find_paths
from modelgrid.spec import Status

COLUMNS = 128
DEADLINE_S = 60.0


def main() -> None:
    """Serve, wait for the states that the picture shows, draw it, stop."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        home = Path(folder)
        config = {"gateway": {"port": port, "grace": "1s"}, **_models()}
        (home / "modelgrid.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        environ = {**os.environ, "MODELGRID_HOME": folder}
        command = [sys.executable, "-m", "modelgrid"]
        serving = subprocess.Popen([*command, "serve"], env=environ, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            status = _scene(ControlClient(find_paths(environ).api_socket), f"http://127.0.0.1:{port}")
        finally:
            subprocess.run([*command, "stop", "--grace", "1s"], env=environ, stderr=subprocess.DEVNULL, check=False)
            serving.wait(DEADLINE_S)
    # What differs from one making to the next is no part of the picture.
    told = replace(status, config="modelgrid.yaml", address="http://127.0.0.1:9000")
    Path(__file__).with_name("status.svg").write_text(_drawn(told))


def _models() -> dict[str, object]:
    return {
        "machine": {"memory": "1GiB"},
        "models": {
            "assistant": _faulty("400MiB", "--eat-memory", "310MiB", "--delay", "15", "--model", "assistant"),
            "embedder": _faulty("200MiB", "--eat-memory", "140MiB", scaling={"min": 1}),
            "coder": _faulty("300MiB", "--eat-memory", "180MiB", "--health-delay", "120", scaling={"min": 1}),
            "reviewer": _faulty("500MiB"),
            "translator": _faulty("250MiB"),
            "archive-70b": _faulty("140GiB"),
        },
    }


def _faulty(memory: str, *arguments: str, **more: object) -> dict[str, object]:
    command = [sys.executable, "-m", "modelgrid.services.faulty", "--port", "{port}", *arguments]
    return {"engine": "custom", "command": command, "needs": {"memory": memory}, **more}


def _scene(control: ControlClient, url: str) -> Status:
    _until(control, lambda status: status.workers > 0)
    _ask(url, "assistant", 3)
    _until(control, lambda status: _model(status, "assistant", in_flight=3))
    _ask(url, "reviewer", 2)
    return _until(
        control,
        lambda status: (
            _model(status, "reviewer", waiting=2)
            and sum(replica.state == "ready" for replica in status.replicas) == 2
            and sum(replica.state == "starting" for replica in status.replicas) == 1
            and status.now - status.started > 20
        ),
    )


def _model(status: Status, name: str, **facts: int) -> bool:
    found = next(model for model in status.models if model.name == name)
    return all(getattr(found, fact) == value for fact, value in facts.items())


def _until(control: ControlClient, holds: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            status = control.status()
        except (NotRunning, ControlError):
            pass
        else:
            if holds(status):
                return status
        time.sleep(0.2)
    raise SystemExit("cannot draw the picture: the models did not come to the states that it shows")


def _ask(url: str, model: str, count: int) -> None:
    def ask() -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        try:
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=DEADLINE_S, trust_env=False)
        except httpx.HTTPError:
            pass  # cut off when the picture is made

    for _ in range(count):
        threading.Thread(target=ask, daemon=True).start()


def _drawn(status: Status) -> str:
    console = Console(
        record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False
    )
    console.print("$ modelgrid status", style="dim")
    for part in picture(status, columns=COLUMNS):
        console.print(part)
    # Without fonts from elsewhere: a page should not call anybody to be looked at.
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="modelgrid", code_format=plain, unique_id="status")


main()

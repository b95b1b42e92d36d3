"""Engines that are programs of others: told clearly where they aren't there, started where they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from e2e.daemon import Daemon, free_port

# What text-generation-launcher is told becomes what the test engine is told.
PROGRAM = """\
#!{python}
import os, sys
port = sys.argv[sys.argv.index("--port") + 1]
os.execv({python!r}, [{python!r}, "-m", "modelgrid.services.faulty", "--port", port])
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One modelgrid with a TGI that is there, one and an Ollama that aren't, and a SGLang that got no GPU."""
    folder = tmp_path_factory.mktemp("programs")
    weights = folder / "weights"
    weights.mkdir()
    (weights / "model.safetensors").touch()
    program = folder / "bin" / "text-generation-launcher"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    nowhere = {"PATH": str(folder / "no-programs")}
    common = {"source": str(weights), "needs": {"memory": "100MiB"}}
    models = {
        "there": {"engine": "tgi", **common, "env": {"PATH": f"{program.parent}:{os.environ['PATH']}"}},
        "missing": {"engine": "tgi", **common, "env": nowhere},
        "not-pulled": {"engine": "ollama", "source": "ollama:llama3.2:1b", "needs": common["needs"], "env": nowhere},
        "gpu-only": {"engine": "sglang", **common},
    }
    made = Daemon(folder / "home", {"gateway": {"port": free_port()}, "machine": {"memory": "1GiB"}, "models": models})
    try:
        yield made.start()
    finally:
        made.end()


def test_a_program_that_is_there_is_started_and_asked_for_what_it_calls_the_model(daemon: Daemon) -> None:
    with daemon.client(headers={"x-faulty": "echo"}) as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "there", "messages": [{"role": "user", "content": "hello"}]}
        )
    assert answer.status_code == 200, answer.text
    assert '"model":"tgi"' in answer.json()["body"].replace(" ", "")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("missing", 'cannot start missing: there is no "text-generation-launcher" on the PATH (install'),
        # Before its gigabytes are pulled, which no registry here could give.
        ("not-pulled", 'cannot start not-pulled: there is no "ollama" on the PATH (install Ollama'),
        ("gpu-only", "cannot start gpu-only: SGLang computes on GPUs only (use engine:"),
    ],
)
def test_what_cannot_be_started_is_told_with_the_next_step(daemon: Daemon, model: str, why: str) -> None:
    answer = daemon.chat(model)
    assert answer.status_code in (502, 503), answer.text
    assert why in answer.json()["error"]["message"]
    assert why in " ".join(daemon.run("why", model).stdout.split())

"""llama.cpp's server is the program on the PATH, else the wheel's, told the same things."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import modelgrid

PROGRAM = """\
#!{python}
import json, os, sys
print(json.dumps(sys.argv), flush=True)
"""

# Of the wheel's shape: parameters that are set one by one, and a server that answers from threads of its own.
LIBRARY = """\
import json
from types import SimpleNamespace

llama_pooling_type = SimpleNamespace(LLAMA_POOLING_TYPE_RANK=4, LLAMA_POOLING_TYPE_MEAN=1)


class CommonParams:
    def __init__(self):
        self.model, self.mmproj, self.cpuparams = (SimpleNamespace() for _ in range(3))


class Server:
    def __init__(self, params):
        if params.model.path.endswith("bad.gguf"):
            raise RuntimeError("failed to load")
        told = {name: vars(value) if hasattr(value, "__dict__") else value for name, value in vars(params).items()}
        print(json.dumps(told), flush=True)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "models" / "tiny.gguf"
    file.parent.mkdir()
    file.touch()
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH without llama-server."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


@contextmanager
def started(path: Path, *argv: str) -> Iterator[subprocess.Popen[str]]:
    source = Path(modelgrid.__file__).parents[1]
    environ = {"PATH": str(path), "PYTHONPATH": f"{source}:{path}", "LLAMA_API_KEY": "k", "LLAMA_ARG_CACHE_RAM": "64"}
    command = [sys.executable, "-m", "modelgrid.services.llama_server", *argv]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def with_program(path: Path) -> Path:
    program = path / "llama-server"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return path


def with_library(path: Path) -> Path:
    (path / "xllamacpp.py").write_text(LIBRARY)
    return path


def refusal(path: Path, *argv: str) -> str:
    with started(path, *argv) as process:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        return said.strip().splitlines()[-1]


@pytest.mark.parametrize("written", ["--model {}", "-m {}", "--model={}"])
def test_the_program_on_the_path_gets_the_arguments_as_they_are(path: Path, model: Path, written: str) -> None:
    given = [*written.format(model.parent).split(), "--port", "8001", "--flash-attn", "on"]
    with started(with_library(with_program(path)), *given) as process:
        out, _ = process.communicate(timeout=30)
    assert json.loads(out)[1:] == [*written.format(model).split(), "--port", "8001", "--flash-attn", "on"]


def test_without_the_program_the_wheel_serves_and_ends_at_once(path: Path, model: Path) -> None:
    given = ("--model", str(model), "--alias", "tiny", "--port", "8001", "--ctx-size", "512", "--metrics", "-np", "3")
    with started(with_library(path), *given) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    assert told == {
        "model": {"path": str(model)},
        "mmproj": {},
        "cpuparams": {},
        "model_alias": ["tiny"],
        "hostnames": ["127.0.0.1"],
        "port": 8001,
        "api_keys": ["k"],
        "n_ctx": 512,
        "n_gpu_layers": 0,
        "n_parallel": 3,
        "endpoint_metrics": True,
        "use_jinja": True,
        "cache_ram_mib": 64,
        "embedding": False,
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--embeddings",), {"embedding": True}),
        (("--embeddings", "--pooling", "mean"), {"embedding": True, "pooling_type": 1}),
        (("--reranking",), {"embedding": True, "pooling_type": 4}),
    ],
)
def test_the_wheel_is_told_what_it_serves(
    path: Path, model: Path, given: tuple[str, ...], told: dict[str, object]
) -> None:
    with started(with_library(path), "--model", str(model), *given) as process:
        assert process.stdout is not None
        heard = json.loads(process.stdout.readline())
    assert {name: heard.get(name) for name in ("embedding", "pooling_type") if name in heard} == told


def test_an_argument_that_the_wheel_does_not_know_is_refused_and_not_dropped(path: Path, model: Path) -> None:
    said = refusal(with_library(path), "--model", str(model), "--alias", "tiny", "--flash-attn", "on")
    assert said.startswith("cannot start tiny: without llama-server on the PATH it takes no --flash-attn on (install")


def test_without_either_it_says_what_to_install(path: Path, model: Path) -> None:
    said = refusal(path, "--model", str(model), "--alias", "tiny")
    assert said.startswith('cannot start tiny: there is no "llama-server" on the PATH (install llama.cpp')


def test_a_file_that_cannot_be_loaded_ends_it(path: Path, model: Path) -> None:
    said = refusal(with_library(path), "--model", str(model.with_name("bad.gguf")), "--alias", "tiny")
    assert said == "cannot start tiny: llama.cpp says: failed to load (its reasons stand above)"


def test_a_folder_is_searched_for_its_model(path: Path, model: Path) -> None:
    folder = model.parent
    for name in ("mmproj-tiny.gguf", "big-00002-of-00002.gguf"):
        (folder / name).touch()
    with started(with_program(path), "--model", str(folder)) as process:
        assert json.loads(process.communicate(timeout=30)[0])[-1] == str(model)
    (folder / "big-00001-of-00002.gguf").touch()
    said = refusal(path, "-m", str(folder), "--alias", "tiny")
    assert said == (
        "cannot start tiny: its folder should hold one model in GGUF, and holds big-00001-of-00002.gguf, tiny.gguf"
        " (name the file in source)"
    )


def test_a_folder_without_any_says_so(path: Path) -> None:
    assert "and holds none" in refusal(path, "--model", str(path))

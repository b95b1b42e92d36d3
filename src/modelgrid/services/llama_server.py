"""llama.cpp's server: the program `llama-server` where the PATH has it, else the same server from a wheel.

``python -m modelgrid.services.llama_server --model FILE.gguf --port 8080`` takes llama-server's own arguments. FILE may
be a folder that holds a GGUF file, or ``stand-in``. The wheel (xllamacpp) has no command line: of the arguments it gets
those that are listed here. The key stands in LLAMA_API_KEY.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from modelgrid.services import stand_in

PROGRAM: Final = "llama-server"
GGUF: Final = "gguf"

_INSTALL: Final = "install llama.cpp, see github.com/ggml-org/llama.cpp, so that llama-server is on the PATH"


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    given = list(sys.argv[1:] if argv is None else argv)
    known, others = _parser().parse_known_args(given)
    name = known.alias or Path(known.model).name
    model = _file(known.model, name)
    if program := shutil.which(PROGRAM):
        os.execv(program, [PROGRAM, *_with_model(given, model)])  # noqa: S606  what it is for
    library = _library(name)
    if others:
        _fail(name, f"without {PROGRAM} on the PATH it takes no {' '.join(others)} ({_INSTALL})")
    _serve(library, _params(library, known, model), name)


def _parser() -> argparse.ArgumentParser:
    """The arguments that the wheel's server gets, under llama-server's names."""
    parser = argparse.ArgumentParser(prog=PROGRAM, allow_abbrev=False, add_help=False)
    add = parser.add_argument
    add("-m", "--model", required=True)
    add("-a", "--alias")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8080)
    add("-c", "--ctx-size", type=int, default=0)
    add("-ngl", "--gpu-layers", "--n-gpu-layers", type=int, default=0)
    add("-np", "--parallel", type=int)
    add("-t", "--threads", type=int)
    add("-b", "--batch-size", type=int)
    add("-ub", "--ubatch-size", type=int)
    add("-mm", "--mmproj")
    add("--chat-template")
    add("--jinja", action="store_true")
    add("--metrics", action="store_true")
    add("--embedding", "--embeddings", action="store_true")
    add("--rerank", "--reranking", action="store_true")
    add("--pooling", choices=("none", "mean", "cls", "last", "rank"))
    return parser


def _file(model: str, name: str) -> Path:
    """The GGUF file; of one in several parts the first, from which llama.cpp finds the rest."""
    path = stand_in.folder(GGUF) if model == stand_in.NAME else Path(model)
    if not path.is_dir():
        return path
    files = sorted(file for file in path.rglob("*.gguf") if not file.name.startswith("mmproj"))
    firsts = [file for file in files if "-of-" not in file.name or "-00001-of-" in file.name]
    if len(firsts) != 1:
        held = ", ".join(file.name for file in firsts) or "none"
        _fail(name, f"its folder should hold one model in GGUF, and holds {held} (name the file in source)")
    return firsts[0]


def _with_model(argv: Sequence[str], model: Path) -> list[str]:
    """The arguments, with the file in the place of what stood for it."""
    replaced = list(argv)
    for place, arg in enumerate(argv):
        if arg in ("-m", "--model"):
            replaced[place + 1] = str(model)
        elif arg.startswith("--model="):
            replaced[place] = f"--model={model}"
    return replaced


def _library(name: str) -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError:
        _fail(name, f'there is no "{PROGRAM}" on the PATH ({_INSTALL}, or name xllamacpp in requirements)')


def _params(library: Any, known: argparse.Namespace, model: Path) -> Any:
    params = library.CommonParams()
    params.model.path = str(model)
    params.model_alias = [known.alias] if known.alias else []
    params.hostnames, params.port = [known.host], known.port
    params.api_keys = [key] if (key := os.environ.get("LLAMA_API_KEY")) else []
    params.n_ctx, params.n_gpu_layers = known.ctx_size, known.gpu_layers
    params.endpoint_metrics = known.metrics
    params.use_jinja = True
    if cached := os.environ.get("LLAMA_ARG_CACHE_RAM"):
        params.cache_ram_mib = int(cached)
    if known.parallel:
        params.n_parallel = known.parallel
    if known.threads:
        params.cpuparams.n_threads = known.threads
    if known.batch_size:
        params.n_batch = known.batch_size
    if known.ubatch_size:
        params.n_ubatch = known.ubatch_size
    if known.mmproj:
        params.mmproj.path = known.mmproj
    if known.chat_template:
        params.chat_template = known.chat_template
    pooling = "rank" if known.rerank else known.pooling
    params.embedding = known.embedding or known.rerank
    if pooling:
        params.pooling_type = getattr(library.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling.upper()}")
    return params


def _serve(library: Any, params: Any, name: str) -> NoReturn:
    # It ends at once: the library waits for its own threads, for ever if it is stopped while it begins.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    try:
        _server = library.Server(params)  # answers from threads of its own, for as long as it is held
    except Exception as error:
        _fail(name, f"llama.cpp says: {error} (its reasons stand above)")
    while True:
        signal.pause()


def _fail(name: str, why: str) -> NoReturn:
    sys.exit(f"cannot start {name}: {why}")


if __name__ == "__main__":
    main()

"""The routers of vLLM, SGLang and SMG, in Rust, each as cheap as its settings make it.

Their logs of every request, retries and circuit breakers are off; replicas are taken in turn; their Tokio runtime has
as many threads as there are workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.gateway import bodies, environments
from bench.gateway.processes import HOST, Program, free_ports, running

_LAUNCH = {"vllm-router": [], "sglang-router": ["launch"], "smg": ["launch"]}
NAMES = tuple(_LAUNCH)


def arguments(name: str, port: int, upstream_ports: tuple[int, ...], metrics_port: int) -> list[str]:
    """What follows the program's name."""
    words = [*_LAUNCH[name], "--host", HOST, "--port", str(port), "--worker-urls"]
    words += [f"http://{HOST}:{upstream}" for upstream in upstream_ports]
    words += ["--policy", "round_robin", "--disable-retries", "--disable-circuit-breaker"]
    words += ["--log-level", "error"]
    if name != "sglang-router":  # it would send the key on twice, which no strict upstream takes
        words += ["--api-key", bodies.KEY]
    words += ["--prometheus-host", HOST, "--prometheus-port", str(metrics_port)]
    return words


@contextlib.contextmanager
def serving(
    name: str, folder: Path, cores: frozenset[int], port: int, upstream_ports: tuple[int, ...], workers: int
) -> Iterator[list[Program]]:
    """A router, until the block ends."""
    words = arguments(name, port, upstream_ports, free_ports(1)[0])
    environ = {"TOKIO_WORKER_THREADS": str(workers), "HOME": str(folder)}
    with running(name, [environments.program(name), *words], folder, cores, environ=environ) as program:
        yield [program]

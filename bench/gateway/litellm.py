"""LiteLLM's proxy, as its own advice for production has it: no database, no retries, a worker for each core."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from bench.gateway import bodies, environments
from bench.gateway.processes import HOST, Program, running

NAME = "litellm"
WARM_UP_S = 5.0  # each worker loads a good part of itself with its first requests
CONNECTIONS = 4  # what is cut off at the end of a load is then a small part of it
PACE_MS = 10_000  # a thousand streams at a chunk a second would be more than it can do
STREAMS = 10  # a core of it carries no more at this pace


def configuration(upstream_ports: tuple[int, ...]) -> dict[str, object]:
    """Its file."""
    return {
        "model_list": [
            {
                "model_name": bodies.MODEL,
                "litellm_params": {
                    "model": f"openai/{bodies.MODEL}",
                    "api_base": f"http://{HOST}:{port}/v1",
                    "api_key": "sk-none",
                },
            }
            for port in upstream_ports
        ],
        "litellm_settings": {"num_retries": 0, "request_timeout": 600, "set_verbose": False},
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": bodies.KEY},
    }


@contextlib.contextmanager
def serving(
    folder: Path, cores: frozenset[int], port: int, upstream_ports: tuple[int, ...], workers: int
) -> Iterator[list[Program]]:
    """LiteLLM, until the block ends."""
    config = folder / "litellm.yaml"
    config.write_text(json.dumps(configuration(upstream_ports)))  # JSON is YAML
    words: list[object] = ["--config", config, "--host", HOST, "--port", port, "--num_workers", workers]
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched at the start
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "HOME": str(folder),
    }
    command = [str(environments.program(NAME)), *map(str, words)]
    with running(NAME, command, folder, cores, environ=environ) as program:
        yield [program]

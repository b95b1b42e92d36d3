"""The upstream of everybody: nginx with one fixed answer, on several ports as if it were several replicas."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import bodies
from bench.gateway.nginx import binary
from bench.gateway.processes import free_ports, running, wait_ready

REPLICAS = 4


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where it is."""

    ports: tuple[int, ...]


@contextlib.contextmanager
def fixed_upstream(folder: Path, cores: frozenset[int]) -> Iterator[Upstream]:
    """One that answers at once, from one nginx worker."""
    ports = tuple(free_ports(REPLICAS))
    config = folder / "upstream.conf"
    config.write_text(_config(ports))
    with running("upstream", [binary(), "-p", folder, "-c", config, "-e", "stderr"], folder, cores) as program:
        for port in ports:
            wait_ready([program], port, "/health", {})
        yield Upstream(ports)


@contextlib.contextmanager
def stream_upstream(folder: Path, cores: frozenset[int]) -> Iterator[Upstream]:
    """One that streams."""
    ports = tuple(free_ports(REPLICAS))
    command = [sys.executable, "-m", "bench.gateway.stream_upstream", *map(str, ports)]
    root = Path(__file__).parents[2]
    environ = {"PYTHONPATH": str(root)}
    with running("stream-upstream", command, folder, cores, environ=environ) as program:
        for port in ports:
            wait_ready([program], port, "/health", {})
        yield Upstream(ports)


def _config(ports: tuple[int, ...]) -> str:
    listens = "\n".join(f"    listen 127.0.0.1:{port} backlog=4096;" for port in ports)
    answers = {
        "= /health": "{}",
        "= /v1/models": bodies.models().decode(),
        **{f"= /{path}": bodies.server_info().decode() for path in INFO_PATHS},
    }
    locations = "\n".join(f"    location {path} {{ return 200 '{answer}'; }}" for path, answer in answers.items())
    # An engine reads a body before it answers. `return` answers first, which is unseen for bodies that come with their
    # head; for longer ones, and those in chunks (SMG's), `mirror` makes nginx read them, and what follows is an answer
    # in place of an error.
    return f"""
daemon off;
worker_processes 1;
pid upstream.pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  default_type application/json;
  keepalive_requests 1000000000;
  keepalive_timeout 600;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  client_header_buffer_size 32k;
  client_body_temp_path upstream-body;
  log_not_found off;
  map "$content_length $http_transfer_encoding" $is_long {{ default 0; "~^\\d{{5}}" 1; "~chunked" 1; }}
  server {{
{listens}
{locations}
    location = /nowhere {{ internal; return 204; }}
    location = /v1/chat/completions {{
      if ($is_long) {{ rewrite ^ /long last; }}
      return 200 '{bodies.completion().decode()}';
    }}
    location = /long {{
      internal;
      mirror /nowhere;
      root /nonexistent;
      error_page 404 405 =200 @answer;
    }}
    location @answer {{ return 200 '{bodies.completion().decode()}'; }}
  }}
}}
"""


INFO_PATHS = ("get_server_info", "server_info", "get_model_info", "model_info")

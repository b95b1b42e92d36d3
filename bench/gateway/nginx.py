"""nginx as a proxy: the measure of all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.gateway import bodies


def binary() -> str:
    """Where nginx is."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or "nginx"


def version() -> str:
    """As it says itself."""
    said = subprocess.run([binary(), "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2]


def proxy_config(folder: Path, port: int, upstream_ports: tuple[int, ...], workers: int) -> str:
    """A fair configuration: keep-alive on both sides, nothing buffered to disk, no log, the same key asked for; of the
    buffers for bodies, the size that is the fastest at 1 MB."""
    servers = "\n".join(f"    server 127.0.0.1:{upstream};" for upstream in upstream_ports)
    return f"""
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600;
  client_max_body_size 64m;
  client_body_buffer_size 256k;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  upstream engines {{
    least_conn;
{servers}
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      if ($http_authorization != "Bearer {bodies.KEY}") {{ return 401; }}
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"""

"""A gateway worker's process."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from pathlib import Path

from modelgrid.config import GatewayConfig
from modelgrid.config.paths import Paths
from modelgrid.gateway import GatewayOptions, run_worker
from modelgrid.telemetry import set_up_logging


def run_gateway(
    paths: Paths,
    config: GatewayConfig,
    *,
    number: int,
    descriptor: int,
    ledger: str | None,
    row: int,
    ready: int | None,
) -> None:
    """Serve callers on the listening socket `descriptor` until SIGTERM has drained what is in flight. That it can is
    written to the descriptor `ready`."""
    name = f"gateway-{number}"
    set_up_logging(paths.logs / f"{name}.log")
    options = GatewayOptions(
        worker=name,
        link_socket=paths.link_socket,
        table_file=paths.table,
        control_socket=paths.api_socket,
        ledger=Path(ledger) if ledger else None,
        row=row,
        workers=config.workers,
        needs_key=not config.is_loopback,  # also where the last key was revoked, or a table is from another life
        body_bytes=config.body_bytes,
        upload_bytes=config.upload_bytes,
        connections=config.connections,
        connect_timeout_s=config.connect_s,
        first_byte_timeout_s=config.first_byte_s,
        idle_timeout_s=config.stall_s,
        grace_s=config.grace_s,
        tls=config.tls,
        cors=config.cors,
        trusted_proxies=config.trusted_proxies,
        log_requests=config.log_requests,
        log_format=config.log_format,
        request_log=paths.logs / f"requests-{number}.log",
    )
    run_worker(socket.socket(fileno=descriptor), options, functools.partial(_tell, ready))


def _tell(ready: int | None) -> None:
    if ready is not None:
        with contextlib.suppress(OSError):  # whoever wanted to know may be gone
            os.write(ready, b"ready\n")
            os.close(ready)

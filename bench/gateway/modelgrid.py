"""modelgrid's data plane: the real gateway workers, with a routing table of this benchmark.

What is measured are the workers' processes, started as the supervisor starts them (`modelgrid.daemon.workers`): they
inherit one listening socket, and the memory in which they count together. The controller is stood in for by a process
that sends the table and reads what workers tell; it is not measured. This file is all that the benchmark knows of
modelgrid.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bench.gateway import bodies
from bench.gateway.processes import HOST, Program, running

import modelgrid
from modelgrid.config import GatewayConfig
from modelgrid.config.paths import find_paths
from modelgrid.gateway.rows import Rows
from modelgrid.spec import AccessKey, Route, RoutingTable, Target
from modelgrid.spec.messages import Quota, encode
from modelgrid.spec.operations import CHAT, COMPLETIONS

_BACKLOG = 4096
_AMPLE = 1_000_000_000  # a quota that is counted and never reached
ROOT = Path(__file__).parents[2]


def version() -> str:
    """Of the working tree."""
    return modelgrid.__version__


def table(ports: tuple[int, ...]) -> RoutingTable:
    """One model with a replica at each port, several keys, quotas for the keys and the model."""
    quota = Quota(requests_per_minute=_AMPLE, tokens_per_minute=_AMPLE, concurrency=_AMPLE)
    targets = tuple(
        Target(replica=f"r{slot}", url=f"http://{HOST}:{port}/v1", model=bodies.MODEL, slot=slot)
        for slot, port in enumerate(ports, start=1)
    )
    slots = iter(range(len(targets) + 1, 1000))
    keys = tuple(
        AccessKey(
            id=f"k{number}",
            name=f"caller {number}",
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            slot=next(slots),
            quota=quota,
            models=(bodies.MODEL,),
        )
        for number, secret in enumerate(["somebody", "somebody else", bodies.KEY])
    )
    route = Route(
        model=bodies.MODEL,
        slot=next(slots),
        aliases=("bench-alias",),
        operations=(CHAT, COMPLETIONS),
        targets=targets,
        state="ready",
        quota=quota,
    )
    return RoutingTable(number=1, routes=(route,), keys=keys)


def described(source: Path) -> dict[str, object]:
    """What it is made from and its configuration, for the record."""
    return {
        "commit": _git(source, "rev-parse", "HEAD"),
        "compiled": _imported(source).name == "compiled",
        "changed": bool(_git(source, "status", "--porcelain", "--", "src")),
        "gateway": asdict(GatewayConfig()),
        "table": json.loads(encode(table((1, 2, 3, 4)))),
    }


@contextlib.contextmanager
def serving(
    folder: Path, cores: frozenset[int], port: int, upstream_ports: tuple[int, ...], workers: int, source: Path
) -> Iterator[list[Program]]:
    """The workers, until the block ends. `source` is the checkout whose workers they are."""
    environ = {"MODELGRID_HOME": str(folder / "home"), "PYTHONPATH": str(_imported(source))}
    paths = find_paths(environ)
    paths.make()
    paths.table.write_bytes(encode(table(upstream_ports)))
    command = [sys.executable, "-m", "bench.gateway.link", str(paths.link_socket), str(paths.table)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(running("controller", command, folder, cores, environ={"PYTHONPATH": str(ROOT)}))
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
        ledger = Rows(2 * workers)
        stack.callback(ledger.close)
        config = GatewayConfig(host=HOST, port=port, workers=workers, grace_s=1.0)
        programs = []
        for _ in range(workers):
            row = ledger.take()
            options = {
                "gateway": asdict(config),
                "number": row + 1,
                "descriptor": listener.fileno(),
                "ledger": str(ledger.path),
                "row": row,
            }
            argv = [sys.executable, "-m", "modelgrid.daemon", "gateway", json.dumps(options)]
            inherited = [listener.fileno(), ledger.descriptor]
            programs.append(
                stack.enter_context(
                    running(f"modelgrid-{row + 1}", argv, folder, cores, environ=environ, pass_fds=inherited)
                )
            )
        yield programs


def _imported(source: Path) -> Path:
    """What users get, where `make compiled` has made it since the sources changed; else the sources themselves."""
    compiled = source / "build" / "compiled"
    made = compiled / ".ready"
    newest_s = max(file.stat().st_mtime for file in (source / "src").rglob("*.py"))
    return compiled if made.exists() and made.stat().st_mtime >= newest_s else source / "src"


def _git(source: Path, *words: str) -> str | None:
    """None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(source), *words], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

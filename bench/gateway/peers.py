"""The columns of the table: what is measured, how it is started, and what it is called."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gateway import bodies, environments, litellm, modelgrid, nginx, routers
from bench.gateway.processes import Failed, Program, free_ports, running, wait_ready

Serving = Callable[[Path, frozenset[int], int, tuple[int, ...], int], contextlib.AbstractContextManager[list[Program]]]


@dataclass(frozen=True, slots=True)
class Peer:
    """One column. `build` makes what it needs and may raise Failed; `serve` starts it for a number of workers."""

    name: str
    build: Callable[[], None]
    version: Callable[[], str]
    serve: Serving
    configuration: Callable[[], object]
    is_router: bool = False  # one of those that are to be outdone
    warm_up_s: float = 1.0
    connections: int = 32  # of its closed loop
    pace_ms: int = 1000  # between the chunks of a thousand streams
    streams: int = 200  # of which its chunks are measured


@dataclass(frozen=True, slots=True)
class Served:
    """A peer that serves."""

    port: int
    programs: tuple[Program, ...]

    @property
    def pids(self) -> list[int]:
        """All processes that are measured."""
        return [pid for program in self.programs for pid in program.pids]


@contextlib.contextmanager
def served(
    peer: Peer, folder: Path, cores: frozenset[int], upstream_ports: tuple[int, ...], workers: int
) -> Iterator[Served]:
    """A peer, until the block ends; it has answered a chat."""
    port = upstream_ports[0] if peer is DIRECT else free_ports(1)[0]
    folder.mkdir(exist_ok=True)
    with peer.serve(folder, cores, port, upstream_ports, workers) as programs:
        for _ in range(2 * len(upstream_ports)):
            wait_ready(programs, port, bodies.PATH, bodies.HEADERS, bodies.chat(300))
        yield Served(port, tuple(programs))


@contextlib.contextmanager
def _nginx(
    folder: Path, cores: frozenset[int], port: int, upstream_ports: tuple[int, ...], workers: int
) -> Iterator[list[Program]]:
    config = folder / "nginx.conf"
    config.write_text(nginx.proxy_config(folder, port, upstream_ports, workers))
    with running("nginx", [nginx.binary(), "-p", folder, "-c", config, "-e", "stderr"], folder, cores) as program:
        yield [program]


@contextlib.contextmanager
def _direct(
    _folder: Path, _cores: frozenset[int], _port: int, _upstream_ports: tuple[int, ...], _workers: int
) -> Iterator[list[Program]]:
    yield []


def _nothing() -> None:
    pass


DIRECT = Peer("direct", _nothing, lambda: "", _direct, lambda: "callers ask the upstream")
NGINX = Peer("nginx", _nothing, nginx.version, _nginx, lambda: nginx.proxy_config(Path("FOLDER"), 1, (1, 2, 3, 4), 1))


LITELLM = Peer(
    litellm.NAME,
    functools.partial(environments.build, litellm.NAME),
    functools.partial(environments.version, litellm.NAME),
    litellm.serving,
    lambda: litellm.configuration((1, 2, 3, 4)),
    warm_up_s=litellm.WARM_UP_S,
    connections=litellm.CONNECTIONS,
    streams=litellm.STREAMS,
    pace_ms=litellm.PACE_MS,
)


def peers(names: Sequence[str] | None, source: Path | None) -> list[Peer]:
    """The columns of these names, or all. Raises Failed."""
    source = (source or modelgrid.ROOT).resolve()
    serve = functools.partial(modelgrid.serving, source=source)
    described = functools.partial(modelgrid.described, source)
    ours = Peer("modelgrid", _nothing, modelgrid.version, serve, described)
    known = {peer.name: peer for peer in (DIRECT, NGINX, ours, *_routers(), LITELLM)}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise Failed(f"cannot measure {', '.join(unknown)}: known are {', '.join(known)}")
    chosen = known if names is None else {"direct", *names}
    return [peer for name, peer in known.items() if name in chosen]


def _routers() -> Iterator[Peer]:
    for name in routers.NAMES:
        yield Peer(
            name,
            functools.partial(environments.build, name),
            functools.partial(environments.version, name),
            functools.partial(routers.serving, name),
            functools.partial(routers.arguments, name, 1, (1, 2, 3, 4), 2),
            is_router=True,
        )

"""What commands read: the daemon, the configuration, the store. Each is imported when it is asked, never for help."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelgrid.cli.failure import Failure, NotRunningFailure

if TYPE_CHECKING:
    from modelgrid.client import ControlClient
    from modelgrid.config import Config
    from modelgrid.config.paths import Paths
    from modelgrid.store import Store

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """``--config FILE``, on every command that reads the configuration."""
    return click.option(
        "--config",
        "named",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration. Else $MODELGRID_CONFIG, ./modelgrid.yaml, the user's own, ./llm_config.json, the "
        "built-in default.",
    )(command)


def json_option(command: F) -> F:
    """``--json``, on every listing."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


@contextmanager
def daemon() -> Iterator[ControlClient]:
    """The running daemon. What it refuses, and that there is none, ends the command."""
    from modelgrid.client import ControlClient, ControlError, NotRunning
    from modelgrid.config.paths import find_paths

    paths = find_paths()
    try:
        with ControlClient(paths.api_socket) as client:
            yield client
    except NotRunning as error:
        raise _away(paths, str(error)) from error
    except ControlError as error:
        raise Failure(str(error)) from error


def _away(paths: Paths, said: str) -> Failure:
    """Nobody answers: there is no daemon, or there is one whose controller is not there now."""
    from modelgrid.daemon.supervisor import running_pid

    pid = running_pid(paths)
    if pid is None:
        return NotRunningFailure(said)
    return Failure(
        f"cannot ask modelgrid: it runs (process {pid}), but its controller doesn't answer: it is starting, or it has "
        f"died and will be started again (see {paths.logs / 'modelgrid.log'}, or try again)"
    )


@contextmanager
def store() -> Iterator[Store]:
    """The store, whether the daemon runs or not."""
    from modelgrid.config.paths import find_paths
    from modelgrid.store import StoreError, open_store

    try:
        paths = find_paths()
        paths.make()
        opened = open_store(paths.store)
        try:
            yield opened
        finally:
            opened.close()
    except StoreError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"cannot make the folders of modelgrid: {error} (check $MODELGRID_HOME)") from error


def configuration(named: Path | None) -> Config:
    """The configuration as it would be served. Every problem of it ends the command."""
    from modelgrid.config import ConfigError, MachineConfig, find_config, load_config
    from modelgrid.config.paths import find_paths
    from modelgrid.hardware import measure_machine
    from modelgrid.weights import hub_answers

    try:
        path = find_config(find_paths(), os.environ, named)
        # Which default is embedded depends on whether weights can be had, and on the memory that they would take.
        hub = path is not None or hub_answers()
        memory_bytes = None if path else measure_machine(MachineConfig(), None).memory_bytes
        return load_config(path, environ=os.environ, hub=hub, memory_bytes=memory_bytes)
    except ConfigError as error:
        raise Failure(f"cannot use the configuration:\n{error}") from error


def weights_root(config: Config) -> Path:
    """The folder of the weights that are pulled."""
    from modelgrid.config.paths import find_paths

    return config.storage.models or find_paths().models


def source(name: str, named: Path | None) -> tuple[str, Path]:
    """The source of the configured model that is called `name`, or `name` itself as a source; and `weights_root`."""
    from modelgrid.weights import parse_source

    config = configuration(named)
    for spec in config.models:
        if name == spec.name or name in spec.aliases:
            if spec.source is None:
                raise Failure(f"cannot find weights of {name}: a model of engine {spec.engine} has none of its own")
            return spec.source, weights_root(config)
    for virtual in config.virtual:
        if name == virtual.name or name in virtual.aliases:
            raise Failure(
                f"cannot find weights of {name}: it is virtual (name one of the models behind it: "
                f"{', '.join(virtual.models)})"
            )
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return str(Path(name).expanduser().absolute()), weights_root(config)
    if "/" not in name and ":" not in name:
        names = [spec.name for spec in config.models]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise Failure(f"cannot find model {name!r}: it is neither configured ({hint}) nor a hub id (OWNER/NAME)")
    return str(parse_source(name) or name), weights_root(config)


def replicas_of_source(source: str) -> list[str]:
    """The models that run on the weights of `source` now; none when modelgrid doesn't run."""
    from modelgrid.weights import parse_source

    wanted = parse_source(source)
    if wanted is None:
        return []
    try:
        with daemon() as client:
            status = client.status()
    except NotRunningFailure:
        return []
    running = {replica.model for replica in status.replicas}
    return [
        model.name
        for model in status.models
        if model.name in running and model.source and parse_source(model.source) == wanted
    ]

"""``modelgrid serve``: starts everything, and tells what is happening until it can be used."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from modelgrid.cli.ask import config_option
from modelgrid.cli.failure import Failure


@click.command()
@config_option
@click.option("--host", help="Listen on this address. Other than loopback needs a key.")
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port.")
@click.option("--workers", type=click.IntRange(1, 256), help="Gateway processes.")
@click.option("--memory", metavar="SIZE", help="What models may take together, for example 16GiB.")
def serve(named: Path | None, host: str | None, port: int | None, workers: int | None, memory: str | None) -> None:
    """Serve the configured models until stopped.

    Without a configuration, a default that fits this machine is served. Ctrl-C, SIGTERM and `modelgrid stop` let
    requests in flight finish, then end every process that was started; a second Ctrl-C doesn't wait for requests.
    """
    from modelgrid.cli.announce import Announcer
    from modelgrid.config import ConfigError, MachineConfig, find_config, load_config
    from modelgrid.config.paths import find_paths
    from modelgrid.daemon.supervisor import Plan, ServeError, supervise
    from modelgrid.hardware import measure_machine
    from modelgrid.store import StoreError
    from modelgrid.telemetry import set_up_logging
    from modelgrid.weights import hub_answers

    given = {"gateway.host": host, "gateway.port": port, "gateway.workers": workers, "machine.memory": memory}
    overrides = {name: str(value) for name, value in given.items() if value is not None}
    paths = find_paths()
    try:
        path = find_config(paths, os.environ, named)
        hub = path is not None or hub_answers()
        memory_bytes = None if path else measure_machine(MachineConfig(), None).memory_bytes
        config = load_config(path, environ=os.environ, overrides=overrides, hub=hub, memory_bytes=memory_bytes)
        paths.make()
        set_up_logging(paths.logs / "supervisor.log")
        for note in config.notes:
            click.echo(f"note: {note}", err=True)
        plan = Plan(config, path, overrides, hub, memory_bytes)
        supervise(paths, plan, Announcer(paths, config, hub=hub).announce)
    except ConfigError as error:
        raise Failure(f"cannot serve this configuration:\n{error}") from error
    except (ServeError, StoreError) as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(
            f"cannot serve: {error} (check the folder and its owner, or set another MODELGRID_HOME)"
        ) from error
    with contextlib.suppress(OSError):  # the terminal may be gone
        click.echo("modelgrid has stopped", err=True)

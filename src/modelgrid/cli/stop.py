"""``modelgrid stop``: ends the daemon, and what one that was killed has left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelgrid.cli.failure import NOT_RUNNING, Failure

if TYPE_CHECKING:
    from modelgrid.config import Config
    from modelgrid.config.paths import Paths


@click.command()
@click.option(
    "--grace",
    default="30s",
    show_default=True,
    help="How long requests and engines may take to end that a daemon which was killed has left. One that runs has "
    "the times of its configuration: gateway.grace, and each model's stop_grace.",
)
def stop(grace: str) -> None:
    """Stop the daemon and everything that it started.

    Requests in flight may finish. Also ends gateway workers and engines that a daemon which was killed has left, and a
    daemon that hangs.
    """
    from modelgrid.config.paths import find_paths
    from modelgrid.daemon.leftovers import StopError
    from modelgrid.daemon.stopping import stop_everything
    from modelgrid.spec.units import parse_seconds

    try:
        grace_s = parse_seconds(grace)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--grace") from error
    paths = find_paths()
    if not paths.run.exists():
        raise _NothingToStop(paths)
    try:
        stopped = stop_everything(
            paths, _any_configuration(), grace_s=grace_s, tell=lambda line: click.echo(line, err=True)
        )
    except StopError as error:
        raise Failure(str(error)) from error
    if not (stopped.daemon or stopped.processes or stopped.replicas):
        raise _NothingToStop(paths)
    click.echo("modelgrid has stopped", err=True)


def _any_configuration() -> Config:
    """Stopping asks nothing of the configuration: it has to work with a broken one."""
    from modelgrid.config import Config

    return Config()


class _NothingToStop(Failure):
    exit_code = NOT_RUNNING

    def __init__(self, paths: Paths) -> None:
        super().__init__(
            f"nothing to stop: no modelgrid with its state in {paths.state} is running, and none has left anything "
            "(is another one meant? set MODELGRID_HOME as it was when that one was started)"
        )

"""``modelgrid restart-workers``: new gateway workers in the place of old ones, while callers come and go."""

from __future__ import annotations

import click

from modelgrid.cli.failure import Failure, NotRunningFailure


@click.command("restart-workers")
def restart_workers() -> None:
    """Replace the gateway workers one by one, while they serve.

    New workers run the code that is installed now: this is how the request path is upgraded. Each takes over once it
    serves; the old one finishes its requests. No connection is refused. Where a new worker can't serve, the old one
    stays. A daemon without a terminal does the same on SIGHUP.
    """
    from modelgrid.config.paths import find_paths
    from modelgrid.daemon.asking import NobodyAsked, replace_workers

    paths = find_paths()
    count = 0
    try:
        for replaced in replace_workers(paths.serve_socket):
            if replaced.why_not is not None:
                raise Failure(f"cannot replace {replaced.worker}, which serves on: {replaced.why_not}")
            click.echo(f"{replaced.worker} is replaced by {replaced.by}")
            count += 1
    except NobodyAsked as error:
        raise NotRunningFailure("cannot restart workers: modelgrid is not running") from error
    if not count:
        raise Failure("cannot restart workers: modelgrid is ending")

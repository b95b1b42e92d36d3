"""`modelgrid config init | show | check | schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure

if TYPE_CHECKING:
    from modelgrid.config import TlsConfig


@click.group(short_help="Make, show and check the configuration.")
def config() -> None:
    """Make, show and check the configuration, one file: modelgrid.yaml."""


@config.command(short_help="Write a configuration to start from.")
@click.option(
    "--config", "named", type=click.Path(path_type=Path), metavar="FILE", help="Where to. Else the user's own."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(named: Path | None, force: bool) -> None:
    """Write a commented configuration to start from."""
    from modelgrid.config import starter_text
    from modelgrid.config.paths import find_paths

    path = named or find_paths().config_file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(starter_text())
    except FileExistsError as error:
        raise Failure(f"cannot write {path}: there is one (keep it, or replace it with --force)") from error
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror} (name another place with --config)") from error
    click.echo(f"wrote {path}\nnext: edit it, then modelgrid config check, then modelgrid serve")


@config.command(short_help="Show the configuration in force.")
@ask.config_option
@click.option("--running", is_flag=True, help="What the daemon uses now, which differs while the file can't be used.")
def show(named: Path | None, running: bool) -> None:
    """Show the configuration with everything filled in: defaults, the environment's overrides, secrets masked."""
    if running and named:
        raise click.UsageError("--running shows what the daemon uses: leave out --config")
    if running:
        with ask.daemon() as client:
            click.echo(client.config().rstrip())
        return
    from modelgrid.config import show as shown

    loaded = ask.configuration(named)
    click.echo(f"# {loaded.path or 'the built-in default (make your own: modelgrid config init)'}")
    click.echo(shown(loaded).rstrip())


@config.command(short_help="Check the configuration.")
@ask.config_option
def check(named: Path | None) -> None:
    """Check the configuration, and tell everything that is wrong with it at once, with its place."""
    from modelgrid.engines import ENGINES

    loaded = ask.configuration(named)
    for warning in (*ENGINES.refused, *_of_certificate(loaded.gateway.tls)):
        click.echo(f"warning: {warning}", err=True)
    for note in loaded.notes:
        click.echo(f"note: {note}", err=True)
    count = len(loaded.models)
    models = f"{count} model{'' if count == 1 else 's'}"
    virtual = f", {len(loaded.virtual)} virtual" if loaded.virtual else ""
    click.echo(f"{loaded.path or 'the built-in default'} is fine: {models}{virtual}")


@config.command(short_help="Print the JSON schema, for editors.")
def schema() -> None:
    """Print the JSON schema of modelgrid.yaml, for editors that complete and check while you write."""
    from modelgrid.config import schema as of_config

    screen.show_json(of_config())


def _of_certificate(tls: TlsConfig | None) -> list[str]:
    from datetime import UTC, datetime

    from modelgrid.config.certificate import expiry_warning

    warning = None if tls is None else expiry_warning(tls, datetime.now(UTC))
    return [] if warning is None else [warning]

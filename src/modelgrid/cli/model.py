"""`modelgrid model list | pull | remove | load | unload`."""

from __future__ import annotations

from pathlib import Path

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure
from modelgrid.spec.source import PACKAGE, STAND_IN, is_path
from modelgrid.spec.units import format_bytes, parse_seconds


@click.group(short_help="List, pull, remove, load and unload models.")
def model() -> None:
    """List, pull, remove, load and unload models."""


@model.command("list", short_help="List the models and their weights.")
@ask.config_option
@ask.json_option
def listed(named: Path | None, as_json: bool) -> None:
    """List the configured models, their state while modelgrid runs, and the weights that were pulled."""
    from modelgrid.cli.inventory import inventory, inventory_tables

    found = inventory(named)
    if as_json:
        screen.show_json(found)
        return
    out = screen.console()
    screen.show(*inventory_tables(found, out.width if out.is_terminal else None))


@model.command(short_help="Fetch a model's weights.")
@click.argument("name", metavar="MODEL")
@ask.config_option
def pull(name: str, named: Path | None) -> None:
    """Fetch the weights of MODEL, and check them. What was broken off is resumed.

    \b
    MODEL is the name of a configured model, or
      OWNER/NAME             a model of the hub
      OWNER/NAME:Q4_K_M      of its GGUF files the one of this quantisation
      OWNER/NAME:FILE.gguf   one of its GGUF files
      ollama:NAME:TAG        a tag of Ollama's
      a path                 to be told what is there
    """
    from modelgrid.cli.pulling import describe, pulling
    from modelgrid.weights import WeightsError, inspect, resolve
    from modelgrid.weights import pull as fetch

    source, root = ask.source(name, named)
    try:
        if is_path(source):
            click.echo(describe(inspect(Path(source))))
            return
        if source == STAND_IN or source.startswith(PACKAGE):
            where = "is made on the spot" if source == STAND_IN else "comes with the environment of its engine"
            click.echo(f"{name} needs no pull: its source is {source}, which {where}")
            return
        if (path := resolve(source, root)) is not None:
            click.echo(f"{source} is at {path} already")
            return
        with pulling(source) as on_progress:
            path = fetch(source, root, on_progress)
    except WeightsError as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt as error:
        raise Failure(f"stopped pulling {source} (the same command resumes it)") from error
    click.echo(f"{source} is at {path}")


@model.command(short_help="Delete a model's weights.")
@click.argument("name", metavar="MODEL")
@click.option("--force", is_flag=True, help="Also while a model runs on them.")
@ask.config_option
def remove(name: str, force: bool, named: Path | None) -> None:
    """Delete the pulled weights of MODEL, the name of a configured one or a source as `pull` takes it."""
    from modelgrid.weights import WeightsError
    from modelgrid.weights import remove as delete

    source, root = ask.source(name, named)
    users = ask.replicas_of_source(source)
    if users and not force:
        raise Failure(
            f"cannot remove {source}: {', '.join(users)} runs on it "
            f"(try: {screen.command('model', 'unload', users[0])}, and wait until it is gone; or add --force)"
        )
    try:
        freed = delete(source, root)
    except WeightsError as error:
        raise Failure(str(error)) from error
    click.echo(f"removed {source}: {format_bytes(freed)} are free again{_kept_open(users)}")


def _kept_open(users: list[str]) -> str:
    if not users:
        return ""
    return f", as soon as {', '.join(users)} is unloaded, which keeps its files open (its next start pulls them again)"


@model.command(short_help="Load a model, and keep it loaded.")
@click.argument("name", metavar="MODEL")
@click.option("--wait", is_flag=True, help="Until it is ready; show what its start is doing.")
@click.option(
    "--timeout", default="30m", show_default=True, metavar="TIME", help="How long --wait waits, for example 90s."
)
def load(name: str, wait: bool, timeout: str) -> None:
    """Load MODEL and keep it loaded, also while nobody uses it."""
    from modelgrid.cli.loading import wait_until_ready

    try:
        timeout_s = parse_seconds(timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error
    with ask.daemon() as client:
        asked = client.load(name)
        loading = asked.model.name
        if wait:
            wait_until_ready(client, loading, since=asked.now, timeout_s=timeout_s)
            click.echo(f"{loading} is ready")
        elif asked.model.state == "ready":
            click.echo(f"{loading} is ready, and stays loaded")
        elif asked.model.state == "unavailable":
            click.echo(f"{loading} will be loaded when it can be, which it can't now: {screen.brief(asked.model.why)}")
        else:
            click.echo(f"{loading} will be loaded (watch: modelgrid status --watch)")


@model.command(short_help="Unload a model.")
@click.argument("name", metavar="MODEL")
def unload(name: str) -> None:
    """Unload MODEL as soon as its requests in flight are answered. A new request starts it again."""
    with ask.daemon() as client:
        asked = client.unload(name)
    click.echo(f"{asked.model.name} will be unloaded (watch: modelgrid status --watch)")

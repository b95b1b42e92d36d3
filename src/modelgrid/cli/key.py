"""`modelgrid key create | list | revoke`. The store is enough: a daemon that runs sees a change within a second."""

from __future__ import annotations

import time

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure


@click.group(short_help="Create, list and revoke the keys of callers.")
def key() -> None:
    """Create, list and revoke the keys with which callers may use the models.

    While there is none, anyone on this machine may, and nobody else: modelgrid then serves on loopback only.
    """


@key.command(short_help="Make a key and print it, once.")
@click.argument("name")
@ask.json_option
def create(name: str, as_json: bool) -> None:
    """Make a key called NAME, and print it. It is kept as a hash, so this is the only time that it is shown."""
    from modelgrid.store import KeyNameRefused

    with ask.store() as store:
        try:
            record, text = store.create_key(name, time.time())
        except KeyNameRefused as error:
            raise Failure(str(error)) from error
    if as_json:
        screen.show_json({"key": text, "id": record.id, "name": record.name})
        return
    click.echo(text)
    # Not on standard output: KEY=$(modelgrid key create laptop) should hold the key alone.
    click.echo("Keep it now: it is not shown again. Callers send it as the header Authorization: Bearer KEY.", err=True)


@key.command("list", short_help="List the keys.")
@ask.json_option
def listed(as_json: bool) -> None:
    """List all keys, the revoked too, with their first characters."""
    with ask.store() as store:
        keys = store.keys()
    if as_json:
        shown = ("id", "name", "shown", "created", "revoked")
        screen.show_json({"keys": [{field: getattr(record, field) for field in shown} for record in keys]})
        return
    if not keys:
        click.echo("there are no keys: anyone on this machine may use the models (make one: modelgrid key create NAME)")
        return
    now = time.time()
    rows = [
        (
            record.id,
            record.name,
            f"{record.shown}…",
            screen.moment(record.created, now),
            "in use" if record.revoked is None else screen.state("revoked"),
        )
        for record in keys
    ]
    screen.show(screen.table(("ID", "NAME", "KEY", "CREATED", "STATE"), rows))


@key.command(short_help="Make a key worthless, for good.")
@click.argument("id_or_name", metavar="KEY")
@ask.json_option
def revoke(id_or_name: str, as_json: bool) -> None:
    """Make KEY, which is an id or a name, worthless for good. Doing it again is harmless."""
    from modelgrid.store import UnknownKey

    with ask.store() as store:
        try:
            record = store.revoke_key(id_or_name, time.time())
        except UnknownKey as error:
            raise Failure(str(error)) from error
    if as_json:
        screen.show_json({"id": record.id, "name": record.name, "revoked": record.revoked})
    else:
        click.echo(f"revoked key {record.name!r} ({record.shown}…)")

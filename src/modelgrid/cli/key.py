"""`modelgrid key create | list | revoke`. The store is enough: a daemon that runs sees a change within a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure

if TYPE_CHECKING:
    from modelgrid.store import KeyRecord

_AT_LEAST_ONE = click.IntRange(min=1)


@click.group(short_help="Create, list and revoke the keys of callers.")
def key() -> None:
    """Create, list and revoke the keys with which callers may use the models.

    While there is none, anyone on this machine may, and nobody else: modelgrid then serves on loopback only.
    """


@key.command(short_help="Make a key and print it, once.")
@click.argument("name")
@click.option("--requests-per-minute", type=_AT_LEAST_ONE, metavar="N", help="Requests that it may make a minute.")
@click.option(
    "--tokens-per-minute",
    type=_AT_LEAST_ONE,
    metavar="N",
    help="Tokens that it may use a minute, of prompts and answers together.",
)
@click.option("--concurrency", type=_AT_LEAST_ONE, metavar="N", help="Requests that it may have in flight at once.")
@click.option(
    "--models", metavar="A,B,…", help="The models that it may use, by name; virtual ones, too. Else it may use all."
)
@ask.json_option
def create(
    name: str,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrency: int | None,
    models: str | None,
    as_json: bool,
) -> None:
    """Make a key called NAME, and print it. It is kept as a hash, so this is the only time that it is shown."""
    from modelgrid.spec.messages import quota_of
    from modelgrid.store import KeyNameRefused

    quota = quota_of(requests_per_minute, tokens_per_minute, concurrency)
    named = None if models is None else _names(models)
    with ask.store() as store:
        try:
            record, text = store.create_key(name, time.time(), quota=quota, models=named)
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
        screen.show_json({"keys": [_shown(record) for record in keys]})
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
            _limits(record),
            "all" if record.models is None else ", ".join(record.models),
        )
        for record in keys
    ]
    screen.show(screen.table(("ID", "NAME", "KEY", "CREATED", "STATE", "LIMITS", "MODELS"), rows))


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


def _names(written: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in written.split(",")))
    if not all(names):
        raise click.BadParameter("write names of models with commas between them", param_hint="--models")
    return names


def _shown(record: KeyRecord) -> dict[str, object]:
    quota = record.quota
    return {
        "id": record.id,
        "name": record.name,
        "shown": record.shown,
        "created": record.created,
        "revoked": record.revoked,
        "requests_per_minute": quota.requests_per_minute if quota else None,
        "tokens_per_minute": quota.tokens_per_minute if quota else None,
        "concurrency": quota.concurrency if quota else None,
        "models": record.models,
    }


def _limits(record: KeyRecord) -> str:
    quota = record.quota
    if quota is None:
        return "-"
    told = (
        (quota.requests_per_minute, "requests/min"),
        (quota.tokens_per_minute, "tokens/min"),
        (quota.concurrency, "at once"),
    )
    return ", ".join(f"{most} {of}" for most, of in told if most is not None)

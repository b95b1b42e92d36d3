"""`modelgrid key`: who may call. The store is enough: a daemon that runs sees a change within a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.failure import Failure
from modelgrid.cli.granting import (
    between_commas,
    duration,
    expiry,
    in_words,
    limit_options,
    limits,
    operations_of,
    quota_in_words,
    state_of,
)

if TYPE_CHECKING:
    from modelgrid.store import KeyRecord, Store


@click.group(short_help="Create, list, rotate and revoke keys, and their groups.")
def key() -> None:
    """Create, list, rotate and revoke the keys with which callers may use the models.

    While there is none, anyone on this machine may, and nobody else: modelgrid then serves on loopback only.
    """


@key.command(short_help="Make a key and print it, once.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["caller", "metrics", "admin"]),
    help="What it is for: the models (which is the default), GET /metrics, the control API. May be given again.",
)
@click.option(
    "--models", metavar="A,B,…", help="The models that it may use, by name; virtual ones, too. Else it may use all."
)
@click.option("--operations", metavar="A,B,…", help="What it may ask of them: chat, embeddings, … Else everything.")
@click.option("--expires", metavar="WHEN", help="When it ends: in 30d, or on 2027-01-31. Else never.")
@click.option("--group", metavar="NAME", help="A group, whose limits it shares with other keys.")
@limit_options
@ask.json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    models: str | None,
    operations: str | None,
    expires: str | None,
    group: str | None,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrency: int | None,
    as_json: bool,
) -> None:
    """Make a key called NAME, and print it. It is kept as a hash, so this is the only time that it is shown."""
    from modelgrid.spec import Scope
    from modelgrid.store import Grant, KeyNameRefused, UnknownGroup

    now = time.time()
    grant = Grant(
        quota=limits(requests_per_minute, tokens_per_minute, concurrency),
        models=None if models is None else between_commas(models, "--models"),
        operations=None if operations is None else operations_of(operations),
        scopes=tuple(dict.fromkeys(map(Scope, scopes))) or (Scope.CALLER,),
        group=group,
        expires=None if expires is None else expiry(expires, now),
    )
    with ask.store() as store:
        try:
            record, text = store.create_key(name, now, grant)
        except (KeyNameRefused, UnknownGroup) as error:
            raise Failure(str(error)) from error
        _note(store, "key.create", name)
    _show_new(record, text, as_json)


@key.command(short_help="Give a key another secret, and print it, once.")
@click.argument("id_or_name", metavar="KEY")
@click.option(
    "--grace", metavar="TIME", default="0s", help="How long the secret before still opens: 1h. Else not at all."
)
@click.option("--expires", metavar="WHEN", help="When the key ends: in 30d, or on 2027-01-31. Else when it did.")
@ask.json_option
def rotate(id_or_name: str, grace: str, expires: str | None, as_json: bool) -> None:
    """Give KEY, which is an id or a name, another secret. Its limits, its models and what it has used stay."""
    from modelgrid.store import KeyIsOver, UnknownKey

    now = time.time()
    grace_s = duration(grace, "--grace")
    until = None if expires is None else expiry(expires, now)
    with ask.store() as store:
        try:
            record, text = store.rotate_key(id_or_name, now, grace_s=grace_s, expires=until)
        except (UnknownKey, KeyIsOver) as error:
            raise Failure(str(error)) from error
        _note(store, "key.rotate", record.name)
    _show_new(record, text, as_json)


@key.command("list", short_help="List the keys.")
@ask.json_option
def listed(as_json: bool) -> None:
    """List all keys, the revoked too, with their first characters."""
    with ask.store() as store:
        keys = store.keys()
    now = time.time()
    if as_json:
        screen.show_json({"keys": [_shown(record, now) for record in keys]})
        return
    if not keys:
        click.echo("there are no keys: anyone on this machine may use the models (make one: modelgrid key create NAME)")
        return
    rows = [
        (
            record.id,
            record.name,
            f"{record.shown}…",
            screen.moment(record.created, now),
            state_of(record, now),
            quota_in_words(record.quota),
            in_words(record),
        )
        for record in keys
    ]
    screen.show(screen.table(("ID", "NAME", "KEY", "CREATED", "STATE", "LIMITS", "MAY USE"), rows))


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
        _note(store, "key.revoke", record.name)
    if as_json:
        screen.show_json({"id": record.id, "name": record.name, "revoked": record.revoked})
    else:
        click.echo(f"revoked key {record.name!r} ({record.shown}…)")


@key.command(short_help="Make a group of keys, or change what it may use.")
@click.argument("name")
@limit_options
@click.option("--remove", is_flag=True, help="Remove it. No key that is in use may be of it.")
def group(
    name: str, requests_per_minute: int | None, tokens_per_minute: int | None, concurrency: int | None, remove: bool
) -> None:
    """Make a group called NAME, whose keys share these limits, or replace the limits of one that is there.

    Each key may have limits of its own as well: then both hold.
    """
    from modelgrid.spec import Quota
    from modelgrid.store import GroupInUse, KeyNameRefused, UnknownGroup

    quota = limits(requests_per_minute, tokens_per_minute, concurrency)
    if remove and quota is not None:
        raise click.UsageError("a group that is removed has no limits (leave them out, or --remove)")
    with ask.store() as store:
        try:
            store.set_group(name, None if remove else quota or Quota())
        except (GroupInUse, KeyNameRefused, UnknownGroup) as error:
            raise Failure(str(error)) from error
        _note(store, "group.remove" if remove else "group.set", name)
    click.echo(f"removed group {name!r}" if remove else f"group {name!r} may use: {quota_in_words(quota)}")


@key.command(short_help="List the groups of keys.")
@ask.json_option
def groups(as_json: bool) -> None:
    """List the groups, with their limits and their keys."""
    with ask.store() as store:
        found = store.groups()
        keys = [record for record in store.keys() if record.revoked is None]  # noqa: SIM118  not a dict's
    members = {name: [record.name for record in keys if record.group == name] for name in found}
    if as_json:
        screen.show_json({"groups": [{"name": name, "quota": found[name], "keys": members[name]} for name in found]})
    elif not found:
        click.echo("there are no groups (make one: modelgrid key group NAME --concurrency 8)")
    else:
        rows = [(name, quota_in_words(quota), ", ".join(members[name]) or "-") for name, quota in found.items()]
        screen.show(screen.table(("GROUP", "LIMITS", "KEYS"), rows))


def _show_new(record: KeyRecord, text: str, as_json: bool) -> None:
    if as_json:
        screen.show_json({"key": text, "id": record.id, "name": record.name})
        return
    click.echo(text)
    # Not on standard output: KEY=$(modelgrid key create laptop) should hold the key alone.
    click.echo("Keep it now: it is not shown again. Callers send it as the header Authorization: Bearer KEY.", err=True)


def _note(store: Store, what: str, target: str) -> None:
    from modelgrid.spec import Deed
    from modelgrid.spec.messages import OWNER

    store.note(Deed(time.time(), OWNER, "", what, target, "ok"))


def _shown(record: KeyRecord, now: float) -> dict[str, object]:
    quota = record.quota
    return {
        "id": record.id,
        "name": record.name,
        "shown": record.shown,
        "created": record.created,
        "revoked": record.revoked,
        "expires": record.expires,
        "former_until": record.former_until(now),
        "scopes": record.scopes,
        "group": record.group,
        "requests_per_minute": quota.requests_per_minute if quota else None,
        "tokens_per_minute": quota.tokens_per_minute if quota else None,
        "concurrency": quota.concurrency if quota else None,
        "models": record.models,
        "operations": record.operations,
    }

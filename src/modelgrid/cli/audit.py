"""`modelgrid audit`: what was done to keys and models, by whom."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from modelgrid.cli import ask, screen
from modelgrid.cli.granting import duration

if TYPE_CHECKING:
    from modelgrid.spec import Deed

_MOST = 100_000


@click.command(short_help="Show who did what to keys and models.")
@click.option(
    "--limit", "-n", type=click.IntRange(1, _MOST), default=100, show_default=True, help="The newest so many."
)
@click.option(
    "--since", metavar="TIME", help="How far back, for example 2h or 30d. Else as far as it is kept: 400 days."
)
@ask.json_option
def audit(limit: int, since: str | None, as_json: bool) -> None:
    """Show who made, changed and revoked keys, loaded and unloaded models, or tried to, the newest last."""
    now = time.time()
    from_then = 0.0 if since is None else now - duration(since, "--since")
    with ask.store() as store:
        deeds = store.audit(limit, from_then)
    if as_json:
        screen.show_json({"audit": deeds})
    elif not deeds:
        click.echo("nothing was done" + ("" if since is None else f" within {since}"))
    else:
        rows = [
            (screen.moment(deed.at, now), _who(deed), deed.what, deed.target or "-", deed.outcome) for deed in deeds
        ]
        screen.show(screen.table(("WHEN", "WHO", "WHAT", "TO", "OUTCOME"), rows))


def _who(deed: Deed) -> str:
    return f"{deed.name} ({deed.who})" if deed.name else deed.who

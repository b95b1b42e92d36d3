"""The keys of the store, as routing tables tell them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelgrid.spec import AccessKey, KeyGroup, Quota
from modelgrid.store import KeyRecord

_NO_KEY = AccessKey(id="none", name="none", sha256="none")  # no key has this hash


def access_keys(records: Iterable[KeyRecord], *, must_have_one: bool) -> tuple[AccessKey, ...]:
    """Those that aren't revoked. One that has expired is told as well, as workers see to that themselves: a table
    without any key would let anybody in. Where that must not be, one is there that nobody has."""
    keys = tuple(_access_key(record) for record in records if record.revoked is None)
    return (_NO_KEY,) if must_have_one and not keys else keys


def key_groups(groups: Mapping[str, Quota], keys: Iterable[AccessKey]) -> tuple[KeyGroup, ...]:
    """The groups that limit any of `keys`."""
    used = {key.group for key in keys}
    return tuple(KeyGroup(name=name, quota=quota) for name, quota in groups.items() if name in used)


def _access_key(record: KeyRecord) -> AccessKey:
    return AccessKey(
        id=record.id,
        name=record.name,
        sha256=record.sha256,
        quota=record.quota,
        models=record.models,
        operations=record.operations,
        scopes=record.scopes,
        group=record.group,
        expires=record.expires,
        former=record.former,
    )

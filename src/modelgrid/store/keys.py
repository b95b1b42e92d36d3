"""Keys as a store keeps them: what each is for, its hashes, and who may not be called so. Pure but for its dice."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from modelgrid.spec import Former, Quota, Scope

NAME_CHARACTERS: Final = 100

_PREFIX: Final = "mg-"
_SHOWN_CHARACTERS: Final = 7


class KeyNameRefused(ValueError):
    """A key or a group can't have this name: it is empty, too long, or another key has it."""


class UnknownKey(LookupError):
    """There is no key with this id or name."""


class KeyIsOver(ValueError):
    """The key was revoked or has expired, so it can't have another secret."""


class UnknownGroup(LookupError):
    """There is no group with this name."""


class GroupInUse(ValueError):
    """Keys are of this group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a key is for."""

    quota: Quota | None = None
    models: tuple[str, ...] | None = None  # names of models, also virtual, or aliases; None: all of them
    operations: tuple[str, ...] | None = None  # of modelgrid.spec.operations; None: all of them
    scopes: tuple[Scope, ...] = (Scope.CALLER,)
    group: str | None = None
    expires: float | None = None  # seconds since the epoch


EVERYTHING: Final = Grant()


@dataclass(frozen=True, slots=True)
class KeyRecord(Grant):
    """A key as it is kept: its hash, and so much of it that its owner recognises it."""

    id: str
    name: str
    sha256: str = field(repr=False)
    shown: str  # the key's first characters
    created: float
    revoked: float | None = None
    former: tuple[Former, ...] = field(default=(), repr=False)

    def is_over(self, now: float) -> bool:
        """Whether it opens nothing any more."""
        return self.revoked is not None or (self.expires is not None and self.expires <= now)

    def former_until(self, now: float) -> float | None:
        """Until when a text from before a rotation still opens; None where none does."""
        return max((one.until for one in self.former if one.until > now), default=None)


def new_key(name: str, now: float, grant: Grant) -> tuple[KeyRecord, str]:
    """A key for `name`. A token of 256 random bits can't be guessed from its hash, so SHA-256 is enough."""
    text, digest = _secret()
    record = KeyRecord(
        secrets.token_hex(4),
        name,
        digest,
        text[:_SHOWN_CHARACTERS],
        now,
        quota=grant.quota,
        models=grant.models,
        operations=grant.operations,
        scopes=grant.scopes,
        group=grant.group,
        expires=grant.expires,
    )
    return record, text


def rotated(key: KeyRecord, now: float, grace_s: float, expires: float | None) -> tuple[KeyRecord, str]:
    """The key with another secret; the one before still opens until the grace is over. Raises KeyIsOver."""
    expires = key.expires if expires is None else expires
    if replace(key, expires=expires).is_over(now):
        if key.revoked is not None:
            raise KeyIsOver(f"cannot rotate key {key.name!r}: it was revoked (make another: modelgrid key create NAME)")
        step = f"modelgrid key rotate {key.name} --expires 30d"
        raise KeyIsOver(f"cannot rotate key {key.name!r}: it has expired (let it live longer: {step})")
    text, digest = _secret()
    last = (Former(sha256=key.sha256, until=now + grace_s),) if grace_s > 0 else ()
    former = tuple(one for one in key.former if one.until > now) if grace_s > 0 else ()
    shown = text[:_SHOWN_CHARACTERS]
    return replace(key, sha256=digest, shown=shown, expires=expires, former=former + last), text


def check_key_name(name: str, keys: Iterable[KeyRecord]) -> None:
    """Raise KeyNameRefused where a new key can't be called `name` beside `keys`."""
    if not _is_name(name):
        raise KeyNameRefused(
            f"cannot create a key named {name!r}: a name has 1 to {NAME_CHARACTERS} printable characters, "
            "without spaces at its ends (try: modelgrid key create laptop)"
        )
    if any(key.name == name and key.revoked is None for key in keys):
        raise KeyNameRefused(
            f"cannot create a key named {name!r}: there is one (choose another name, or: modelgrid key revoke {name})"
        )


def check_group(group: str | None, groups: Iterable[str]) -> None:
    """Raise UnknownGroup where a key can't be of `group`."""
    if group is not None and group not in groups:
        raise UnknownGroup(
            f"cannot put a key into group {group!r}: there is no such group (make it: modelgrid key group {group!r})"
        )


def check_group_change(name: str, quota: Quota | None, groups: Iterable[str], keys: Iterable[KeyRecord]) -> None:
    """Raise where a group can't become so: see `Store.set_group`."""
    if quota is not None:
        if not _is_name(name):
            raise KeyNameRefused(
                f"cannot make a group named {name!r}: a name has 1 to {NAME_CHARACTERS} printable characters, "
                "without spaces at its ends (try: modelgrid key group team-a)"
            )
        return
    if name not in groups:
        raise UnknownGroup(f"cannot remove group {name!r}: there is no such group (see: modelgrid key groups)")
    if using := [key.name for key in keys if key.group == name and key.revoked is None]:
        raise GroupInUse(
            f"cannot remove group {name!r}: keys are of it: {', '.join(using)} (revoke them first: "
            f"modelgrid key revoke {using[0]})"
        )


def find_key(id_or_name: str, keys: Iterable[KeyRecord], *, what: str) -> KeyRecord:
    """The key with this id, else the one in use with this name, else the last that had it. Raises UnknownKey, saying
    `what` can't be done to it."""
    known = list(keys)
    by_id = [key for key in known if key.id == id_or_name]
    in_use = [key for key in known if key.name == id_or_name and key.revoked is None]
    revoked = [key for key in known if key.name == id_or_name and key.revoked is not None]
    for found in (by_id, in_use, revoked):
        if found:
            return found[-1]
    raise UnknownKey(f"cannot {what} key {id_or_name!r}: there is no such key (see: modelgrid key list)")


def _is_name(name: str) -> bool:
    return bool(name.strip()) and name == name.strip() and name.isprintable() and len(name) <= NAME_CHARACTERS


def _secret() -> tuple[str, str]:
    text = _PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return text, hashlib.sha256(text.encode()).hexdigest()

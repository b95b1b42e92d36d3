"""The seam of stores: what must outlive a process. Wishes and keys come from people, the rest from the controller."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from modelgrid.spec import Event, Failures, ModelName, Quota, Replica, ReplicaId, Wish

EVENTS_KEPT = 10_000
RUNS_KEPT = 1_000
KEY_NAME_CHARACTERS = 100

_KEY_PREFIX = "mg-"
_SHOWN_CHARACTERS = 7


class StoreError(Exception):
    """The store can't be read or written; the text says which, why, and what to do."""


class KeyNameRefused(ValueError):
    """A key can't have this name: it is empty, too long, or another key has it."""


class UnknownKey(LookupError):
    """There is no key with this id or name."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What the controller must not forget. `next` numbers the next replica, `table` is the last routing table's."""

    replicas: tuple[Replica, ...] = ()
    failures: dict[ModelName, Failures] = field(default_factory=dict)
    next: int = 1
    table: int = 0


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A caller's key as it is kept: its hash, and so much of it that its owner recognises it."""

    id: str
    name: str
    sha256: str = field(repr=False)
    shown: str  # the key's first characters
    created: float
    revoked: float | None = None
    quota: Quota | None = None
    models: tuple[str, ...] | None = None  # names of models, also virtual, or aliases; None: all of them


@dataclass(frozen=True, slots=True)
class Run:
    """What one replica took while it was there. None: nobody has seen it."""

    replica: ReplicaId
    model: ModelName
    revision: str
    accelerator: str  # what it computed on: "cpu", "cuda"
    at: float  # when it was made, in seconds since the epoch
    load_s: float | None = None  # from its process to its first answer
    memory_bytes: int | None = None  # the most that it held of what it computed on
    main_bytes: int = 0  # the most of main memory beside GPUs


class Store(Protocol):
    """What must outlive a process. Everything below holds for every store and is what the contract tests check.

    - Every call is one transaction: it happened wholly or not at all, also when the process is killed in it.
    - Several processes may have one store open, and several threads may share one object.
    - Calls block for milliseconds; for seconds, where another process holds the store. Any of them may raise
      StoreError, after which the store can still be used.
    """

    def saved(self) -> Saved:
        """What was saved last; the empty `Saved()` where nothing ever was."""
        ...

    def save(self, saved: Saved) -> None:
        """Replace what is saved. Only the controller calls this."""
        ...

    def wishes(self) -> dict[ModelName, Wish]:
        """What was asked for by hand."""
        ...

    def set_wish(self, model: ModelName, wish: Wish | None) -> None:
        """Keep a wish, or forget it (None); forgetting what isn't there is harmless."""
        ...

    def keys(self) -> list[KeyRecord]:
        """Every key, the revoked too, oldest first."""
        ...

    def create_key(
        self, name: str, now: float, *, quota: Quota | None = None, models: tuple[str, ...] | None = None
    ) -> tuple[KeyRecord, str]:
        """A new key, and its text, which can't be had again. Raises KeyNameRefused."""
        ...

    def revoke_key(self, id_or_name: str, now: float) -> KeyRecord:
        """Make a key worthless for good. Doing it again changes nothing. Raises UnknownKey."""
        ...

    def runs(self) -> list[Run]:
        """What replicas took, oldest first."""
        ...

    def remember(self, runs: Iterable[Run]) -> None:
        """Keep these, instead of what was known of the same replicas; the newest `RUNS_KEPT` are kept."""
        ...

    def record(self, events: Iterable[Event]) -> None:
        """Add events; the newest `EVENTS_KEPT` are kept."""
        ...

    def events(self, model: str | None, limit: int) -> list[Event]:
        """The newest `limit` events of `model` (None: of all), in the order in which they were recorded."""
        ...

    def secret(self) -> bytes:
        """32 random bytes, made once for this store: engines' keys are derived from them."""
        ...

    def version(self) -> int:
        """Another number than before once a wish or a key was written by this object, or anything by another."""
        ...

    def close(self) -> None:
        """Let go of the store. May be called again."""
        ...


def new_key(name: str, now: float, quota: Quota | None, models: tuple[str, ...] | None) -> tuple[KeyRecord, str]:
    """A key for `name`. A token of 256 random bits can't be guessed from its hash, so SHA-256 is enough."""
    text = _KEY_PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    digest = hashlib.sha256(text.encode()).hexdigest()
    shown = text[:_SHOWN_CHARACTERS]
    return KeyRecord(secrets.token_hex(4), name, digest, shown, now, quota=quota, models=models), text


def check_key_name(name: str, keys: Iterable[KeyRecord]) -> None:
    """Raise KeyNameRefused where a new key can't be called `name` beside `keys`."""
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > KEY_NAME_CHARACTERS:
        raise KeyNameRefused(
            f"cannot create a key named {name!r}: a name has 1 to {KEY_NAME_CHARACTERS} printable characters, "
            "without spaces at its ends (try: modelgrid key create laptop)"
        )
    if any(key.name == name and key.revoked is None for key in keys):
        raise KeyNameRefused(
            f"cannot create a key named {name!r}: there is one (choose another name, or: modelgrid key revoke {name})"
        )


def find_key(id_or_name: str, keys: Iterable[KeyRecord]) -> KeyRecord:
    """The key with this id, else the one in use with this name, else the last that had it. Raises UnknownKey."""
    known = list(keys)
    by_id = [key for key in known if key.id == id_or_name]
    in_use = [key for key in known if key.name == id_or_name and key.revoked is None]
    revoked = [key for key in known if key.name == id_or_name and key.revoked is not None]
    for found in (by_id, in_use, revoked):
        if found:
            return found[-1]
    raise UnknownKey(f"cannot revoke key {id_or_name!r}: there is no such key (see: modelgrid key list)")

"""The seam of stores: what must outlive a process. Wishes and keys come from people, the rest from the controller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from modelgrid.spec import Deed, Event, Failures, ModelName, Quota, Replica, ReplicaId, Wish
from modelgrid.spec.usage import Tariff
from modelgrid.store.keys import EVERYTHING, Grant, KeyRecord
from modelgrid.store.usage import Told, UsageAsked, UsageRow

EVENTS_KEPT = 10_000
RUNS_KEPT = 1_000
DEEDS_KEPT = 100_000
DEEDS_KEPT_S = 400 * 86_400.0  # more than a year, so that the same week can be looked up


class StoreError(Exception):
    """The store can't be read or written; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What the controller must not forget. `next` numbers the next replica, `table` is the last routing table's."""

    replicas: tuple[Replica, ...] = ()
    failures: dict[ModelName, Failures] = field(default_factory=dict)
    next: int = 1
    table: int = 0


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

    def create_key(self, name: str, now: float, grant: Grant = EVERYTHING) -> tuple[KeyRecord, str]:
        """A new key, and its text, which can't be had again. Raises KeyNameRefused, and UnknownGroup."""
        ...

    def rotate_key(
        self, id_or_name: str, now: float, *, grace_s: float = 0.0, expires: float | None = None
    ) -> tuple[KeyRecord, str]:
        """Another text for a key, which is the same key otherwise; the text before opens for `grace_s` more. It
        expires at `expires`, else when it did. Raises UnknownKey, and KeyIsOver."""
        ...

    def revoke_key(self, id_or_name: str, now: float) -> KeyRecord:
        """Make a key worthless for good. Doing it again changes nothing. Raises UnknownKey."""
        ...

    def groups(self) -> dict[str, Quota]:
        """What the keys of each group may use together, by its name."""
        ...

    def set_group(self, name: str, quota: Quota | None) -> None:
        """Make a group, or change what it may use; None: remove it. Raises KeyNameRefused, UnknownGroup for one that
        isn't there to be removed, and GroupInUse while keys in use are of it."""
        ...

    def note(self, deed: Deed) -> None:
        """Add to the audit log, of which the newest `DEEDS_KEPT` are kept, and none older than `DEEDS_KEPT_S`."""
        ...

    def audit(self, limit: int, since: float = 0.0) -> list[Deed]:
        """The newest `limit` deeds since then, in the order in which they were noted."""
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

    def write_usage(self, told: Iterable[Told], now: float, tariff: Tariff) -> None:
        """Add what is new of what workers tell to the sums of this hour, by this tariff. Told again it adds nothing."""
        ...

    def forget_usage(self, now: float, living: Iterable[str]) -> None:
        """Drop what is older than `USAGE_KEPT_S`, and what was told by workers that aren't among the `living`: one of
        them that told more would be counted twice."""
        ...

    def usage(self, asked: UsageAsked) -> list[UsageRow]:
        """The sums of the hours that are asked for, the oldest first."""
        ...

    def currency(self) -> str:
        """What costs are in, as it was last written; empty where nothing was."""
        ...

    def secret(self) -> bytes:
        """32 random bytes, made once for this store: engines' keys are derived from them."""
        ...

    def version(self) -> int:
        """Another number than before once this object wrote a wish, a key or a group, or another one anything."""
        ...

    def close(self) -> None:
        """Let go of the store. May be called again."""
        ...

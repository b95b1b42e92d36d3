"""What must outlive a process: what the controller knows, what people wish, their keys, and what happened."""

from modelgrid.store.keys import (
    EVERYTHING,
    Grant,
    GroupInUse,
    KeyIsOver,
    KeyNameRefused,
    KeyRecord,
    UnknownGroup,
    UnknownKey,
)
from modelgrid.store.memory import MemoryStore
from modelgrid.store.sqlite import SqliteStore, open_store
from modelgrid.store.store import DEEDS_KEPT, DEEDS_KEPT_S, EVENTS_KEPT, RUNS_KEPT, Run, Saved, Store, StoreError
from modelgrid.store.usage import USAGE_KEPT_S, Told, UsageAsked, UsageRow
from modelgrid.store.usage_report import tell_usage, usage_as_csv

__all__ = [
    "DEEDS_KEPT",
    "DEEDS_KEPT_S",
    "EVENTS_KEPT",
    "EVERYTHING",
    "RUNS_KEPT",
    "USAGE_KEPT_S",
    "Grant",
    "GroupInUse",
    "KeyIsOver",
    "KeyNameRefused",
    "KeyRecord",
    "MemoryStore",
    "Run",
    "Saved",
    "SqliteStore",
    "Store",
    "StoreError",
    "Told",
    "UnknownGroup",
    "UnknownKey",
    "UsageAsked",
    "UsageRow",
    "open_store",
    "tell_usage",
    "usage_as_csv",
]

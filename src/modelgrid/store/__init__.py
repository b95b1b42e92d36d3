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

__all__ = [
    "DEEDS_KEPT",
    "DEEDS_KEPT_S",
    "EVENTS_KEPT",
    "EVERYTHING",
    "RUNS_KEPT",
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
    "UnknownGroup",
    "UnknownKey",
    "open_store",
]

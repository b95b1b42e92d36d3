"""What must outlive a process: what the controller knows, what people wish, their keys, and what happened."""

from modelgrid.store.memory import MemoryStore
from modelgrid.store.sqlite import SqliteStore, open_store
from modelgrid.store.store import (
    EVENTS_KEPT,
    RUNS_KEPT,
    KeyNameRefused,
    KeyRecord,
    Run,
    Saved,
    Store,
    StoreError,
    UnknownKey,
)

__all__ = [
    "EVENTS_KEPT",
    "RUNS_KEPT",
    "KeyNameRefused",
    "KeyRecord",
    "MemoryStore",
    "Run",
    "Saved",
    "SqliteStore",
    "Store",
    "StoreError",
    "UnknownKey",
    "open_store",
]

"""The store's fake: keeps everything in memory, for tests of what stands above it."""

from __future__ import annotations

import dataclasses
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable

from modelgrid.spec import Deed, Event, ModelName, Quota, ReplicaId, Wish
from modelgrid.spec.usage import Tariff
from modelgrid.store import usage
from modelgrid.store.keys import (
    EVERYTHING,
    Grant,
    KeyRecord,
    check_group,
    check_group_change,
    check_key_name,
    find_key,
    new_key,
    rotated,
)
from modelgrid.store.store import DEEDS_KEPT, DEEDS_KEPT_S, EVENTS_KEPT, RUNS_KEPT, Run, Saved, StoreError


class MemoryStore:
    """A store that lives as long as its object. While `broken` says why, every call raises StoreError."""

    def __init__(self) -> None:
        self.broken: str | None = None
        self._saved = Saved()
        self._wishes: dict[ModelName, Wish] = {}
        self._keys: list[KeyRecord] = []
        self._groups: dict[str, Quota] = {}
        self._deeds: deque[Deed] = deque(maxlen=DEEDS_KEPT)
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._runs: dict[ReplicaId, Run] = {}
        self._secret = secrets.token_bytes(32)
        self._used = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)  # sums are its trade
        self._used.executescript(usage.TABLES)
        self._version = 0
        self._lock = threading.Lock()

    def saved(self) -> Saved:
        self._check()
        return dataclasses.replace(self._saved, failures=dict(self._saved.failures))

    def save(self, saved: Saved) -> None:
        self._check()
        self._saved = dataclasses.replace(saved, failures=dict(saved.failures))

    def wishes(self) -> dict[ModelName, Wish]:
        self._check()
        with self._lock:
            return dict(self._wishes)

    def set_wish(self, model: ModelName, wish: Wish | None) -> None:
        self._check()
        with self._lock:
            if wish is None:
                self._wishes.pop(model, None)
            else:
                self._wishes[model] = wish
            self._version += 1

    def keys(self) -> list[KeyRecord]:
        self._check()
        with self._lock:
            return list(self._keys)

    def create_key(self, name: str, now: float, grant: Grant = EVERYTHING) -> tuple[KeyRecord, str]:
        self._check()
        with self._lock:
            check_key_name(name, self._keys)
            check_group(grant.group, self._groups)
            record, text = new_key(name, now, grant)
            self._keys.append(record)
            self._version += 1
            return record, text

    def rotate_key(
        self, id_or_name: str, now: float, *, grace_s: float = 0.0, expires: float | None = None
    ) -> tuple[KeyRecord, str]:
        self._check()
        with self._lock:
            record = find_key(id_or_name, self._keys, what="rotate")
            changed, text = rotated(record, now, grace_s, expires)
            self._keys[self._keys.index(record)] = changed
            self._version += 1
            return changed, text

    def revoke_key(self, id_or_name: str, now: float) -> KeyRecord:
        self._check()
        with self._lock:
            record = find_key(id_or_name, self._keys, what="revoke")
            if record.revoked is None:
                revoked = dataclasses.replace(record, revoked=now)
                self._keys[self._keys.index(record)] = revoked
                self._version += 1
                return revoked
            return record

    def groups(self) -> dict[str, Quota]:
        self._check()
        with self._lock:
            return dict(self._groups)

    def set_group(self, name: str, quota: Quota | None) -> None:
        self._check()
        with self._lock:
            check_group_change(name, quota, self._groups, self._keys)
            if quota is None:
                del self._groups[name]
            else:
                self._groups[name] = quota
            self._version += 1

    def note(self, deed: Deed) -> None:
        self._check()
        with self._lock:
            self._deeds.append(deed)
            while self._deeds[0].at < deed.at - DEEDS_KEPT_S:
                self._deeds.popleft()

    def audit(self, limit: int, since: float = 0.0) -> list[Deed]:
        self._check()
        with self._lock:
            wanted = [deed for deed in self._deeds if deed.at >= since]
        return wanted[-limit:] if limit > 0 else []

    def runs(self) -> list[Run]:
        self._check()
        with self._lock:
            return sorted(self._runs.values(), key=lambda run: run.at)

    def remember(self, runs: Iterable[Run]) -> None:
        self._check()
        with self._lock:
            self._runs |= {run.replica: run for run in runs}
            kept = sorted(self._runs.values(), key=lambda run: run.at)[-RUNS_KEPT:]
            self._runs = {run.replica: run for run in kept}

    def record(self, events: Iterable[Event]) -> None:
        self._check()
        with self._lock:
            self._events.extend(events)

    def events(self, model: str | None, limit: int) -> list[Event]:
        self._check()
        with self._lock:
            wanted = [event for event in self._events if model is None or event.model == model]
        return wanted[-limit:] if limit > 0 else []

    def write_usage(self, told: Iterable[usage.Told], now: float, tariff: Tariff) -> None:
        self._check()
        with self._lock:
            usage.write(self._used, told, now, tariff)

    def forget_usage(self, now: float, living: Iterable[str]) -> None:
        self._check()
        with self._lock:
            usage.forget(self._used, now, living)

    def usage(self, asked: usage.UsageAsked) -> list[usage.UsageRow]:
        self._check()
        with self._lock:
            return usage.rows(self._used, asked)

    def currency(self) -> str:
        self._check()
        with self._lock:
            return usage.currency(self._used)

    def secret(self) -> bytes:
        self._check()
        return self._secret

    def version(self) -> int:
        self._check()
        return self._version

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.broken is not None:
            raise StoreError(f"cannot use the store: {self.broken} (it is a fake: clear `broken`)")

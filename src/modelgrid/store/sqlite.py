"""The store on a disk: one SQLite file, open in several processes at once."""

from __future__ import annotations

import dataclasses
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from modelgrid.spec import Deed, Event, Failures, Former, ModelName, Quota, Replica, Scope, Wish
from modelgrid.spec.reason import Reason
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

# One entry a version of the schema; `user_version` counts those that a file has had. Never edit one: add one.
_MIGRATIONS: Final = (
    """
    CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE replicas (id TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE failures (model TEXT PRIMARY KEY, body TEXT NOT NULL);
    CREATE TABLE wishes (model TEXT PRIMARY KEY, wish TEXT NOT NULL);
    CREATE TABLE keys (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE,
        shown TEXT NOT NULL, created REAL NOT NULL, revoked REAL
    );
    CREATE UNIQUE INDEX keys_in_use ON keys (name) WHERE revoked IS NULL;
    CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, model TEXT NOT NULL, replica TEXT,
        what TEXT NOT NULL, why TEXT NOT NULL
    );
    CREATE INDEX events_by_model ON events (model, number);
    """,
    """
    ALTER TABLE keys ADD COLUMN quota TEXT;
    ALTER TABLE keys ADD COLUMN models TEXT;
    """,
    """
    ALTER TABLE events ADD COLUMN reason TEXT;
    """,
    # Memory is counted by device: what was there lived in main memory, or on the one GPU that was looked at.
    """
    UPDATE replicas SET body = json_set(
        body, '$.shares', json_array(json_object('device', 'cpu', 'memory_bytes', json_extract(body, '$.memory_bytes')))
    )
    WHERE json_extract(body, '$.shares') IS NULL;
    """,
    """
    CREATE TABLE runs (replica TEXT PRIMARY KEY, at REAL NOT NULL, body TEXT NOT NULL);
    CREATE INDEX runs_by_time ON runs (at);
    """,
    """
    ALTER TABLE keys ADD COLUMN operations TEXT;
    ALTER TABLE keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '["caller"]';
    ALTER TABLE keys ADD COLUMN of_group TEXT;
    ALTER TABLE keys ADD COLUMN expires REAL;
    ALTER TABLE keys ADD COLUMN former TEXT NOT NULL DEFAULT '[]';
    CREATE TABLE key_groups (name TEXT PRIMARY KEY, quota TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, name TEXT NOT NULL,
        what TEXT NOT NULL, target TEXT NOT NULL, outcome TEXT NOT NULL
    );
    """,
    usage.TABLES,
)
_NEXT_STEP: Final = "move it away and start again: running engines are found and adopted"


def open_store(path: Path, *, busy_timeout_s: float = 5.0) -> SqliteStore:
    """The store at `path`, made where there is none. Raises StoreError."""
    return SqliteStore(path, busy_timeout_s=busy_timeout_s)


class SqliteStore:
    """`Store` in one file of mode 0600. `busy_timeout_s` is how long a call waits for another process's write."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 5.0) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._written = 0  # what `data_version` doesn't count: this connection's own wishes and keys
        with self._errors("open"):
            _make_private(path)
            self._db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        try:
            with self._errors("read"):
                self._db.execute("PRAGMA journal_mode = WAL")
                # Safe against a crash of the process; a power cut may lose the last moments, never the file.
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._migrate()
                self._secret = self._make_secret()
        except StoreError:
            self._db.close()
            raise

    def saved(self) -> Saved:
        with self._reading() as db:
            replicas = [
                msgspec.json.decode(body, type=Replica)
                for (body,) in db.execute("SELECT body FROM replicas ORDER BY rowid")
            ]
            failures = {
                ModelName(model): msgspec.json.decode(body, type=Failures)
                for model, body in db.execute("SELECT model, body FROM failures")
            }
            facts = dict(db.execute("SELECT name, value FROM facts WHERE name IN ('next', 'table')"))
        return Saved(tuple(replicas), failures, next=int(facts.get("next", 1)), table=int(facts.get("table", 0)))

    def save(self, saved: Saved) -> None:
        replicas = [(replica.id, _json(replica)) for replica in saved.replicas]
        failures = [(model, _json(failure)) for model, failure in saved.failures.items()]
        with self._writing() as db:
            db.execute("DELETE FROM replicas")
            db.executemany("INSERT INTO replicas VALUES (?, ?)", replicas)
            db.execute("DELETE FROM failures")
            db.executemany("INSERT INTO failures VALUES (?, ?)", failures)
            facts = [("next", saved.next), ("table", saved.table)]
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)

    def wishes(self) -> dict[ModelName, Wish]:
        with self._reading() as db:
            return {ModelName(model): Wish(wish) for model, wish in db.execute("SELECT model, wish FROM wishes")}

    def set_wish(self, model: ModelName, wish: Wish | None) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM wishes WHERE model = ?", (model,))
            if wish is not None:
                db.execute("INSERT INTO wishes VALUES (?, ?)", (model, wish.value))
        self._written += 1

    def keys(self) -> list[KeyRecord]:
        with self._reading() as db:
            return _keys(db)

    def create_key(self, name: str, now: float, grant: Grant = EVERYTHING) -> tuple[KeyRecord, str]:
        with self._writing() as db:
            check_key_name(name, _keys(db))
            check_group(grant.group, _groups(db))
            record, text = new_key(name, now, grant)
            columns = "id, name, sha256, shown, created, quota, models, operations, scopes, of_group, expires"
            db.execute(
                f"INSERT INTO keys ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  constants
                (
                    *(record.id, record.name, record.sha256, record.shown, record.created),
                    *(None if value is None else _json(value) for value in (grant.quota, grant.models)),
                    None if grant.operations is None else _json(grant.operations),
                    *(_json(grant.scopes), grant.group, grant.expires),
                ),
            )
        self._written += 1
        return record, text

    def rotate_key(
        self, id_or_name: str, now: float, *, grace_s: float = 0.0, expires: float | None = None
    ) -> tuple[KeyRecord, str]:
        with self._writing() as db:
            key, text = rotated(find_key(id_or_name, _keys(db), what="rotate"), now, grace_s, expires)
            db.execute(
                "UPDATE keys SET sha256 = ?, shown = ?, expires = ?, former = ? WHERE id = ?",
                (key.sha256, key.shown, key.expires, _json(key.former), key.id),
            )
        self._written += 1
        return key, text

    def revoke_key(self, id_or_name: str, now: float) -> KeyRecord:
        with self._writing() as db:
            record = find_key(id_or_name, _keys(db), what="revoke")
            db.execute("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (now, record.id))
            revoked = find_key(record.id, _keys(db), what="revoke")
        self._written += 1
        return revoked

    def groups(self) -> dict[str, Quota]:
        with self._reading() as db:
            return _groups(db)

    def set_group(self, name: str, quota: Quota | None) -> None:
        with self._writing() as db:
            check_group_change(name, quota, _groups(db), _keys(db))
            if quota is None:
                db.execute("DELETE FROM key_groups WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO key_groups VALUES (?, ?)", (name, _json(quota)))
        self._written += 1

    def note(self, deed: Deed) -> None:
        columns = "at, who, name, what, target, outcome"
        row = (deed.at, deed.who, deed.name, deed.what, deed.target, deed.outcome)
        with self._writing() as db:
            db.execute(f"INSERT INTO audit ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)  # noqa: S608  a constant
            db.execute("DELETE FROM audit WHERE at < ?", (deed.at - DEEDS_KEPT_S,))
            db.execute("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?", (DEEDS_KEPT,))

    def audit(self, limit: int, since: float = 0.0) -> list[Deed]:
        newest = "SELECT at, who, name, what, target, outcome FROM audit WHERE at >= ? ORDER BY number DESC LIMIT ?"
        with self._reading() as db:
            rows = db.execute(newest, (since, max(limit, 0))).fetchall()
        return [Deed(*row) for row in reversed(rows)]

    def runs(self) -> list[Run]:
        with self._reading() as db:
            bodies = db.execute("SELECT body FROM runs ORDER BY at")
            return [msgspec.json.decode(body, type=Run) for (body,) in bodies]

    def remember(self, runs: Iterable[Run]) -> None:
        rows = [(run.replica, run.at, _json(run)) for run in runs]
        if not rows:
            return
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", rows)
            old = "DELETE FROM runs WHERE replica NOT IN (SELECT replica FROM runs ORDER BY at DESC LIMIT ?)"
            db.execute(old, (RUNS_KEPT,))

    def record(self, events: Iterable[Event]) -> None:
        rows = [(event.at, event.model, event.replica, event.what, event.why, _said(event.reason)) for event in events]
        if not rows:
            return
        with self._writing() as db:
            db.executemany("INSERT INTO events (at, model, replica, what, why, reason) VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.execute("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (EVENTS_KEPT,))

    def events(self, model: str | None, limit: int) -> list[Event]:
        columns = "SELECT at, model, replica, what, why, reason FROM events"
        newest = "ORDER BY number DESC LIMIT ?"
        with self._reading() as db:
            if model is None:
                rows = db.execute(f"{columns} {newest}", (max(limit, 0),)).fetchall()
            else:
                rows = db.execute(f"{columns} WHERE model = ? {newest}", (model, max(limit, 0))).fetchall()
            return [_event(*row) for row in reversed(rows)]

    def write_usage(self, told: Iterable[usage.Told], now: float, tariff: Tariff) -> None:
        with self._writing() as db:
            usage.write(db, told, now, tariff)

    def forget_usage(self, now: float, living: Iterable[str]) -> None:
        with self._writing() as db:
            usage.forget(db, now, living)

    def usage(self, asked: usage.UsageAsked) -> list[usage.UsageRow]:
        with self._reading() as db:
            return usage.rows(db, asked)

    def currency(self) -> str:
        with self._reading() as db:
            return usage.currency(db)

    def secret(self) -> bytes:
        return self._secret

    def version(self) -> int:
        with self._errors("read"), self._lock:
            (others,) = self._db.execute("PRAGMA data_version").fetchone()
            return int(others) + self._written

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _migrate(self) -> None:
        newest = len(_MIGRATIONS)
        if self._schema() == newest:
            return
        with self._writing() as db:
            done = self._schema()  # again, under the lock: another process may just have done it
            if done > newest:
                raise StoreError(
                    f"cannot read the store at {self.path}: a newer modelgrid wrote it (its schema is {done}, this "
                    f"modelgrid knows up to {newest}) (upgrade modelgrid, or {_NEXT_STEP})"
                )
            for migration in _MIGRATIONS[done:]:
                for statement in migration.split(";"):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {newest}")

    def _schema(self) -> int:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _make_secret(self) -> bytes:
        read = "SELECT value FROM facts WHERE name = 'secret'"
        if row := self._db.execute(read).fetchone():
            return bytes(row[0])
        with self._writing() as db:
            # Where two processes come at once, the first one's stays.
            db.execute("INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_bytes(32),))
            return bytes(db.execute(read).fetchone()[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._transaction("read", "BEGIN"):
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: a transaction that starts by reading and is then outrun could only fail.
        with self._transaction("write", "BEGIN IMMEDIATE"):
            yield self._db

    @contextmanager
    def _transaction(self, what: str, begin: str) -> Iterator[None]:
        with self._errors(what), self._lock:
            self._db.execute(begin)
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._db.rollback()
                raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise StoreError(f"cannot {what} the store at {self.path}: {_why(error)}") from error


def _make_private(path: Path) -> None:
    """The file must be ours alone before SQLite writes into it; its journal files take over its mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _why(error: Exception) -> str:
    if isinstance(error, IsADirectoryError):
        return f"{error.strerror} ({_NEXT_STEP})"
    if isinstance(error, OSError):
        return f"{error.strerror or error} (check the folder and its owner)"
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"{error} (another process holds it: look for one with the file open, then try again)"
    if isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or "disk I/O" in str(error)):
        return f"{error} (make room on its disk, then try again)"
    return f"{error} ({_NEXT_STEP})"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _said(reason: Reason | None) -> str | None:
    """A reason without what it doesn't say: most fields are of other kinds of events."""
    if reason is None:
        return None
    said = {field.name: getattr(reason, field.name) for field in dataclasses.fields(reason)}
    return _json({name: value for name, value in said.items() if value is not None and value != ()})


def _event(at: float, model: str, replica: str | None, what: str, why: str, reason: str | None) -> Event:
    return Event(at, model, replica, what, why, None if reason is None else msgspec.json.decode(reason, type=Reason))


def _groups(db: sqlite3.Connection) -> dict[str, Quota]:
    rows = db.execute("SELECT name, quota FROM key_groups ORDER BY name")
    return {name: msgspec.json.decode(quota, type=Quota) for name, quota in rows}


def _keys(db: sqlite3.Connection) -> list[KeyRecord]:
    columns = "id, name, sha256, shown, created, revoked, of_group, expires, quota, models, operations, scopes, former"
    return [_key(*row) for row in db.execute(f"SELECT {columns} FROM keys ORDER BY number")]  # noqa: S608  a constant


def _key(*row: Any) -> KeyRecord:
    *plain, quota, models, operations, scopes, former = row
    names = ("id", "name", "sha256", "shown", "created", "revoked", "group", "expires")
    return KeyRecord(
        **dict(zip(names, plain, strict=True)),
        quota=None if quota is None else msgspec.json.decode(quota, type=Quota),
        models=None if models is None else msgspec.json.decode(models, type=tuple[str, ...]),
        operations=None if operations is None else msgspec.json.decode(operations, type=tuple[str, ...]),
        scopes=msgspec.json.decode(scopes, type=tuple[Scope, ...]),
        former=msgspec.json.decode(former, type=tuple[Former, ...]),
    )

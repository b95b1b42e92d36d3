"""What was used, by hour, key, model and operation: written down once, however often it is told.

A worker tells what it has counted since it began, again and again. What it told last is kept beside the sums, and
written in the same transaction, so only what came between is added: a controller that is killed anywhere counts nothing
twice and forgets nothing that it had written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from modelgrid.spec.usage import COLUMNS, Counts, Tariff, Used

USAGE_KEPT_S: Final = 400 * 86_400.0  # more than a year, so that the same month can be looked up
HOUR_S: Final = 3600

# A step of the store's schema, so it never changes.
TABLES: Final = """
    CREATE TABLE usage (
        hour INTEGER NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, operation TEXT NOT NULL,
        requests INTEGER NOT NULL, errors INTEGER NOT NULL, left INTEGER NOT NULL, seconds REAL NOT NULL,
        input INTEGER NOT NULL, output INTEGER NOT NULL, cached INTEGER NOT NULL,
        estimated_input INTEGER NOT NULL, estimated_output INTEGER NOT NULL,
        images INTEGER NOT NULL, media_s REAL NOT NULL, cost REAL NOT NULL,
        PRIMARY KEY (hour, key, model, operation)
    ) WITHOUT ROWID;
    CREATE TABLE usage_told (
        incarnation TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, operation TEXT NOT NULL,
        counts TEXT NOT NULL, PRIMARY KEY (incarnation, key, model, operation)
    ) WITHOUT ROWID;
    CREATE TABLE usage_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker told that it has used since it began."""

    incarnation: str  # of the worker's process
    used: Used


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one key used of one model's operation within an hour. `hour` counts from the epoch."""

    hour: int
    key: str
    model: str
    operation: str
    counts: Counts
    cost: float


@dataclass(frozen=True, slots=True)
class UsageAsked:
    """Which usage is asked for. None: of all."""

    since: float = 0.0
    until: float = float("inf")
    keys: tuple[str, ...] | None = None  # ids
    model: str | None = None


def write(db: sqlite3.Connection, told: Iterable[Told], now: float, tariff: Tariff) -> None:
    """Add what is new of `told` to the sums of this hour; to be called within a transaction."""
    hour = int(now // HOUR_S)
    db.execute("INSERT OR REPLACE INTO usage_facts VALUES ('currency', ?)", (tariff.currency,))
    for one in told:
        used = one.used
        place = (used.key, used.model, used.operation)
        before = _told_before(db, one.incarnation, place)
        spent = used.counts.since(before)
        if spent.is_empty:
            continue
        db.execute(_ADD, (hour, *place, *msgspec.structs.astuple(spent), tariff.cost(used.model, spent)))
        kept = msgspec.json.encode(used.counts.latest(before)).decode()
        db.execute("INSERT OR REPLACE INTO usage_told VALUES (?, ?, ?, ?, ?)", (one.incarnation, *place, kept))


def forget(db: sqlite3.Connection, now: float, living: Iterable[str]) -> None:
    """Drop what is older than it is kept, and what workers told that have ended."""
    db.execute("DELETE FROM usage WHERE hour < ?", (int((now - USAGE_KEPT_S) // HOUR_S),))
    known = {incarnation for (incarnation,) in db.execute("SELECT DISTINCT incarnation FROM usage_told")}
    gone = known - set(living)
    db.executemany("DELETE FROM usage_told WHERE incarnation = ?", [(incarnation,) for incarnation in gone])


def rows(db: sqlite3.Connection, asked: UsageAsked) -> list[UsageRow]:
    """The sums that are asked for, the oldest first."""
    found = db.execute(_ROWS, (*hours(asked), asked.model))
    read = [
        UsageRow(hour, key, model, operation, Counts(*counts), cost)
        for hour, key, model, operation, *counts, cost in found
    ]
    return [row for row in read if asked.keys is None or row.key in asked.keys]


def currency(db: sqlite3.Connection) -> str:
    """What costs were last in."""
    row = db.execute("SELECT value FROM usage_facts WHERE name = 'currency'").fetchone()
    return "" if row is None else str(row[0])


def hours(asked: UsageAsked) -> tuple[int, int]:
    """The first hour and the last one that lie at least in part in what is asked for."""
    return int(asked.since // HOUR_S), int(min(asked.until, 1e12) // HOUR_S)


def _told_before(db: sqlite3.Connection, incarnation: str, place: tuple[str, str, str]) -> Counts:
    asked = "SELECT counts FROM usage_told WHERE incarnation = ? AND key = ? AND model = ? AND operation = ?"
    row = db.execute(asked, (incarnation, *place)).fetchone()
    return Counts() if row is None else msgspec.json.decode(row[0], type=Counts)


_COLUMNS: Final = ", ".join(("hour", "key", "model", "operation", *COLUMNS, "cost"))
_ROWS: Final = f"""
    SELECT {_COLUMNS} FROM usage WHERE hour BETWEEN ? AND ? AND model = coalesce(?, model)
    ORDER BY hour, key, model, operation
    """  # noqa: S608  constants
_ADD: Final = f"""
    INSERT INTO usage ({_COLUMNS}) VALUES ({", ".join("?" * (len(COLUMNS) + 5))})
    ON CONFLICT (hour, key, model, operation)
    DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in (*COLUMNS, "cost"))}
    """  # noqa: S608  constants

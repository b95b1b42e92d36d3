"""Sums of usage as a report: by key, model, operation, day or hour, and in all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

import msgspec

from modelgrid.spec.usage import By, Counts, UsageLine, UsageReport
from modelgrid.store.keys import KeyRecord, UnknownKey
from modelgrid.store.store import Store
from modelgrid.store.usage import HOUR_S, UsageAsked, UsageRow

_Place = tuple[str, ...]
_Sums = tuple[Counts, float]  # and the cost


def tell_usage(
    store: Store, now: float, since: float, by: Sequence[By], key: str | None = None, model: str | None = None
) -> UsageReport:
    """What was used `since` then, of one key (by name or id) and one model where they are named. Raises UnknownKey."""
    records = store.keys()
    keys = None if key is None else _ids(records, key)
    by = tuple(dict.fromkeys(by))
    lines, total = _lines(store.usage(UsageAsked(since, now, keys, model)), by, {one.id: one.name for one in records})
    return UsageReport(since, now, store.currency(), tuple(str(one) for one in by), lines, total)


def usage_as_csv(report: UsageReport) -> str:
    """A report's lines, without the total: a spreadsheet adds up by itself."""
    columns = [*report.by, *(name for name in asdict(UsageLine()) if name not in set(By))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for line in report.lines:
        writer.writerow(_harmless(getattr(line, column)) for column in columns)
    return text.getvalue()


def _ids(records: Iterable[KeyRecord], key: str) -> tuple[str, ...]:
    """All that had the name: one that was revoked, and the one in its place."""
    found = tuple(record.id for record in records if key in (record.id, record.name))
    if not found:
        raise UnknownKey(f"cannot tell the usage of key {key!r}: there is no such key (see: modelgrid key list)")
    return found


def _lines(
    rows: Iterable[UsageRow], by: Sequence[By], names: Mapping[str, str]
) -> tuple[tuple[UsageLine, ...], UsageLine]:
    sums: dict[_Place, _Sums] = {}
    total: _Sums = (Counts(), 0.0)
    for row in rows:
        place = tuple(_part(row, one, names) for one in by)
        sums[place] = _with(sums.get(place, (Counts(), 0.0)), row)
        total = _with(total, row)
    made = (_line(dict(zip(by, place, strict=True)), sums[place]) for place in sorted(sums))
    return tuple(made), _line({}, total)


def _part(row: UsageRow, by: By, names: Mapping[str, str]) -> str:
    match by:
        case By.KEY:
            return names.get(row.key, row.key)
        case By.MODEL:
            return row.model
        case By.OPERATION:
            return row.operation
        case By.DAY:
            return datetime.fromtimestamp(row.hour * HOUR_S).date().isoformat()
        case By.HOUR:
            return datetime.fromtimestamp(row.hour * HOUR_S).isoformat(timespec="minutes")


def _with(sums: _Sums, row: UsageRow) -> _Sums:
    return sums[0].plus(row.counts), sums[1] + row.cost


def _line(place: Mapping[By, str], sums: _Sums) -> UsageLine:
    counts, cost = sums
    return UsageLine(
        key=place.get(By.KEY),
        model=place.get(By.MODEL),
        operation=place.get(By.OPERATION),
        day=place.get(By.DAY),
        hour=place.get(By.HOUR),
        **msgspec.structs.asdict(counts),
        cost=cost,
    )


def _harmless(value: object) -> object:
    """A name that a spreadsheet would take for a formula is one no more."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value

"""What was used is shown without a daemon: as a table, as CSV, as JSON."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from modelgrid.spec.usage import Counts, Price, Tariff, Used
from modelgrid.store import SqliteStore, Told

Run = Callable[..., subprocess.CompletedProcess[str]]
NOW = time.time()


@pytest.fixture
def used(store: SqliteStore) -> None:
    key, _ = store.create_key("ann", 0.0)
    tariff = Tariff({"large": Price(input=2.5, output=10.0)}, "USD")
    told = (
        Told("w", Used(key.id, "large", "chat", Counts(1200, 3, 2, 754.0, 1_000_000, 250_000, 400))),
        Told("w", Used("", "small", "chat", Counts(5, estimated_input=40, estimated_output=9))),
        Told("w", Used("", "", "chat", Counts(requests=1, errors=1))),
    )
    store.write_usage(told, NOW, tariff)


def test_a_table_with_a_total_by_key_and_model(run: Run, used: None) -> None:
    rows = [line.split("  ") for line in run("usage").stdout.splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["KEY", "MODEL", "REQUESTS", "ERRORS", "LEFT", "INPUT", "CACHED", "OUTPUT", "TIME", "COST USD"],
        ["(no key)", "(no model)", "1", "1", "0", "0", "0", "0", "0s", "0.00"],
        ["(no key)", "small", "5", "0", "0", "~40", "0", "~9", "0s", "0.00"],
        ["ann", "large", "1,200", "3", "2", "1,000,000", "400", "250,000", "12m34s", "5.00"],
        ["all", "1,206", "4", "2", "~1,000,040", "400", "~250,009", "12m34s", "5.00"],
    ]


def test_a_day_has_a_bar(run: Run, used: None, store: SqliteStore) -> None:
    half = Used("", "large", "chat", Counts(requests=1, input=1_000_000))
    store.write_usage([Told("other", half)], NOW - 86_400, Tariff({"large": Price(input=2.5)}, "USD"))
    first, second, total = run("usage", "--by", "day").stdout.splitlines()[1:]
    assert first.startswith(datetime.fromtimestamp(NOW - 86_400, UTC).date().isoformat())
    assert (first.count("█"), second.count("█"), total.count("█")) == (12, 24, 0)


def test_csv_and_json_of_one_key(run: Run, used: None) -> None:
    heading, line = run("usage", "--csv", "--key", "ann", "--by", "model,operation").stdout.splitlines()
    assert heading.split(",")[:4] == ["model", "operation", "requests", "errors"]
    assert line.split(",")[:4] == ["large", "chat", "1200", "3"]
    told = json.loads(run("usage", "--json", "--since", "1h").stdout)
    assert (told["total"]["requests"], len(told["lines"]), told["currency"]) == (1206, 3, "USD")


def test_nothing_used_is_no_error(run: Run) -> None:
    done = run("usage", "--since", "12h")
    assert (done.returncode, done.stdout[:22]) == (0, "nothing was used since")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--by", "colour"), "write one or more of key, model, operation, day, hour"),
        (("--since", "yesterday"), "write a duration (12h, 7d) or a day (2026-11-01)"),
    ],
)
def test_wrong_words_are_told(run: Run, words: tuple[str, ...], why: str) -> None:
    done = run("usage", *words)
    assert done.returncode == 2
    assert why in done.stderr


def test_a_key_that_is_not_there_is_told(run: Run) -> None:
    done = run("usage", "--key", "bob")
    assert (done.returncode, "there is no such key" in done.stderr) == (1, True)

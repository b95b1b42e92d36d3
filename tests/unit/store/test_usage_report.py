"""What was used, as lines and as CSV."""

from __future__ import annotations

from datetime import datetime

import pytest

from modelgrid.spec.usage import By, Counts, Price, Tariff, UsageLine, Used
from modelgrid.store import MemoryStore, Told, UnknownKey, tell_usage, usage_as_csv

NOON = datetime(2026, 11, 21, 12, 30).timestamp()
DAY_S = 86_400.0


def used(store: MemoryStore, key: str, model: str, at: float, **counts: float) -> None:
    told = Told(f"{key}-{model}-{at}", Used(key, model, "chat", Counts(requests=1, **counts)))  # type: ignore[arg-type]  # of the field's own type
    store.write_usage([told], at, Tariff({"dear": Price(input=2.0, output=8.0)}, "USD"))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_lines_are_by_what_is_asked_for_and_sum_up(store: MemoryStore) -> None:
    ann, _ = store.create_key("ann", 0.0)
    used(store, ann.id, "dear", NOON, input=1_000_000, output=500_000)
    used(store, ann.id, "cheap", NOON, input=5)
    used(store, "", "cheap", NOON - DAY_S, input=7)
    by_key = tell_usage(store, NOON, NOON - 2 * DAY_S, (By.KEY,))
    assert by_key.currency == "USD"
    assert by_key.lines == (
        UsageLine(key="", requests=1, input=7),
        UsageLine(key="ann", requests=2, input=1_000_005, output=500_000, cost=6.0),
    )
    assert by_key.total == UsageLine(requests=3, input=1_000_012, output=500_000, cost=6.0)
    by_day = tell_usage(store, NOON, NOON - 2 * DAY_S, (By.DAY, By.MODEL))
    assert [(line.day, line.model) for line in by_day.lines] == [
        ("2026-11-20", "cheap"),
        ("2026-11-21", "cheap"),
        ("2026-11-21", "dear"),
    ]


def test_it_can_be_of_one_key_one_model_and_a_time(store: MemoryStore) -> None:
    ann, _ = store.create_key("ann", 0.0)
    store.revoke_key("ann", 1.0)
    second, _ = store.create_key("ann", 2.0)
    for key in (ann.id, second.id, "other"):
        used(store, key, "m", NOON, input=1)
        used(store, key, "n", NOON - 3 * DAY_S, input=10)
    assert tell_usage(store, NOON, 0.0, (By.KEY,), key="ann").total.input == 22
    assert tell_usage(store, NOON, 0.0, (By.KEY,), key=ann.id).total.input == 11
    assert tell_usage(store, NOON, 0.0, (), model="n").total.input == 30
    assert tell_usage(store, NOON, NOON - DAY_S, ()).total.input == 3
    with pytest.raises(UnknownKey, match="cannot tell the usage of key 'bob'"):
        tell_usage(store, NOON, 0.0, (), key="bob")


def test_a_spreadsheet_gets_no_formula_from_a_name(store: MemoryStore) -> None:
    key, _ = store.create_key("=HYPERLINK(1)", 0.0)
    used(store, key.id, "m, n", NOON, output=2)
    heading, line = usage_as_csv(tell_usage(store, NOON, 0.0, (By.KEY, By.MODEL, By.HOUR))).splitlines()
    assert heading.startswith("key,model,hour,requests,errors,left,seconds,input,output,")
    assert line.startswith('\'=HYPERLINK(1),"m, n",2026-11-21T12:00,1,0,0,0.0,0,2,')


def test_cached_tokens_and_things_have_prices_of_their_own() -> None:
    counts = Counts(requests=2, input=1000, cached=400, output=100, estimated_output=10, images=3, media_s=60.0)
    price = Price(input=1.0, output=10.0, cached=0.5, request=0.01, image=0.1, second=0.001)
    assert price.of(counts) == pytest.approx(600e-6 + 200e-6 + 1100e-6 + 0.02 + 0.3 + 0.06)
    assert Price(input=1.0).of(counts) == pytest.approx(1000e-6)

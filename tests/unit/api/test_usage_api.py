"""What the control API tells of usage."""

from __future__ import annotations

import time

import pytest

from modelgrid.spec.usage import Counts, Price, Tariff, Used
from modelgrid.store import Told
from unit.api.asking import Api


@pytest.fixture
def api() -> Api:
    api = Api()
    key, _ = api.store.create_key("ann", 0.0)
    tariff = Tariff({"m": Price(input=1.0)}, "USD")
    used = Used(key.id, "m", "chat", Counts(requests=2, input=1_000_000, output=7))
    api.store.write_usage([Told("w", used)], time.time(), tariff)
    old = Used("", "old", "chat", Counts(requests=1))
    api.store.write_usage([Told("w", old)], time.time() - 30 * 86_400, tariff)
    return api


def test_usage_is_of_the_last_week_by_key_and_model(api: Api) -> None:
    answer = api.ask("GET", "/usage").json()
    (line,) = answer["lines"]
    assert (line["key"], line["model"], line["operation"], line["day"]) == ("ann", "m", None, None)
    assert (line["requests"], line["input"], line["output"], line["cost"]) == (2, 1_000_000, 7, 1.0)
    assert (answer["currency"], answer["by"], answer["total"]["requests"]) == ("USD", ["key", "model"], 2)


def test_usage_by_something_else_of_a_longer_time_of_one_model(api: Api) -> None:
    month = api.ask("GET", "/usage", params={"since_s": 40 * 86_400, "by": "day,operation"}).json()
    assert [line["requests"] for line in month["lines"]] == [1, 2]
    assert api.ask("GET", "/usage", params={"model": "old"}).json()["lines"] == []


def test_usage_as_csv(api: Api) -> None:
    answer = api.ask("GET", "/usage", params={"format": "csv", "by": "key"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.splitlines()[1].startswith("ann,2,0,0,0.0,1000000,7,")


@pytest.mark.parametrize(
    ("params", "status", "why"),
    [
        ({"by": "colour"}, 422, "cannot tell the usage by 'colour'"),
        ({"by": ""}, 422, "write one or more of key, model"),
        ({"key": "bob"}, 404, "cannot tell the usage of key 'bob'"),
        ({"since_s": "-1"}, 422, "since_s"),
        ({"since_s": "1e300"}, 422, "since_s"),
        ({"format": "xml"}, 422, "format"),
    ],
)
def test_what_can_not_be_told_is_said(api: Api, params: dict[str, str], status: int, why: str) -> None:
    answer = api.ask("GET", "/usage", params=params)
    assert answer.status_code == status
    assert why in answer.json()["error"]["message"]

"""The four messages: what one side writes, the other reads, line by line."""

from __future__ import annotations

import msgspec
import pytest

from modelgrid.spec import (
    AccessKey,
    Choice,
    Demand,
    Hello,
    Load,
    Outcome,
    Parameters,
    Quota,
    Route,
    Routing,
    RoutingTable,
    Target,
    Unavailable,
    Virtual,
)
from modelgrid.spec.messages import FromWorker, decode_from_worker, decode_table, encode

PARAMETERS = Parameters(
    strip=("x",), default={"a": '"\\u2028"'}, set={"b": "[1, null, 1e400]"}, cap={"c": 0.5, "d": 1e300}
)
TABLE = RoutingTable(
    number=7,
    routes=(
        Route(
            model='a/b:"c"\n',
            aliases=("x", "é"),
            operations=("chat",),
            targets=(Target(replica="r-1", url="http://127.0.0.1:1/v1", model="m", key="CANARY"),),
            unavailable=Unavailable(why="line\nbreak", retry_after_s=1.5),
            queue=0,
            wait_s=0.5,
            created=5,
            state="ready",
            why="it \u2028 is",
        ),
        Route(
            model="told",
            slot=2,
            endpoint="/v1/mine",
            quota=Quota(requests_per_minute=1, tokens_per_minute=2, concurrency=3),
            parameters=PARAMETERS,
            routing=Routing(policy="session", session=("header:x-chat", "body:user"), slack=2.0),
        ),
        Route(
            model="smart",
            virtual=Virtual(
                choices=(Choice(model="cold"), Choice(model="told", weight=0.5, parameters=PARAMETERS)),
                choose="weight",
                spill_over=8,
                fall_back=False,
            ),
        ),
        Route(model="cold"),
    ),
    keys=(
        AccessKey(id="k", name="n", sha256="00"),
        AccessKey(id="l", name="m", sha256="01", slot=3, quota=Quota(concurrency=1), models=("smart", "é")),
    ),
    last_slot=3,
)

FROM_WORKERS: list[FromWorker] = [
    Hello(worker="w", pid=1),
    Demand(model="m\n", waiting=3, oldest_s=0.25),
    Demand(model="m", waiting=0, oldest_s=0.0),
    Load(table=7, in_flight={"r-1": 2}, requests={"m": 5}),
    Load(table=7, in_flight={}),
    Outcome(replica="r-1", outcome="broke", why="reset\nby peer"),
]


def test_a_table_comes_over_as_it_was() -> None:
    assert decode_table(encode(TABLE)) == TABLE


@pytest.mark.parametrize("message", FROM_WORKERS)
def test_a_workers_message_comes_over_as_it_was(message: FromWorker) -> None:
    assert decode_from_worker(encode(message)) == message


@pytest.mark.parametrize("message", [TABLE, *FROM_WORKERS])
def test_a_message_is_exactly_one_line(message: RoutingTable | FromWorker) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}",
        b"nonsense",
        b'{"type":"table","number":1}',
        b'{"type":"demand","model":"m"}',
        b'{"type":"hello"}',
    ],
)
def test_a_line_that_is_no_workers_message_is_told(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_from_worker(line)


def test_an_outcome_is_one_of_those_that_the_planner_knows() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_from_worker(b'{"type":"outcome","replica":"r","outcome":"fine","why":""}')


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    line = b'{"type":"hello","worker":"w","pid":1,"colour":"red"}'
    assert decode_from_worker(line) == Hello(worker="w", pid=1)


def test_an_engines_key_is_not_in_a_repr() -> None:
    assert "CANARY" not in repr(TABLE)

"""A worker's counts: what is told, when, and how many series there may be."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from modelgrid.gateway import answers
from modelgrid.gateway.accounts import CALLER_LEFT
from modelgrid.gateway.meters import METERS_A_SNAPSHOT, Meters
from modelgrid.spec import metrics
from modelgrid.spec.messages import Load, Series, decode_from_worker, encode
from modelgrid.spec.metrics import Metric

Told = dict[tuple[str, tuple[str, ...]], tuple[float, ...]]


def told(series: Iterable[Series]) -> Told:
    found = {(one.metric, one.labels): one.values for one in series}
    assert len(found) == len(tuple(series)), "a series is told once"
    return found


def value(all_told: Told, metric: Metric, *labels: str) -> float:
    (found,) = all_told[metric.name, labels]
    return found


def histogram(all_told: Told, metric: Metric, *labels: str) -> tuple[float, dict[float, float]]:
    """The sum, and the buckets that aren't empty by their upper ends."""
    total, *buckets = all_told[metric.name, labels]
    return total, {end: count for end, count in zip((*metric.bounds, float("inf")), buckets, strict=True) if count}


def test_requests_are_counted_by_the_status_of_their_answer() -> None:
    meters = Meters("w")
    meter = meters.of("m", "chat", "alice")
    for status in (200, 200, 400, CALLER_LEFT):
        meter.done(status, 0.5)
    now = told(meters.snapshot(0))
    counts = {status: value(now, metrics.REQUESTS, "m", "chat", "alice", status) for status in ("200", "400", "499")}
    assert counts == {"200": 2, "400": 1, "499": 1}


def test_the_same_labels_are_the_same_meter() -> None:
    meters = Meters("w")
    assert meters.of("m", "chat", "alice") is meters.of("m", "chat", "alice")
    assert meters.of("m", "chat", "alice") is not meters.of("m", "chat", "bob")


def test_a_duration_falls_into_the_bucket_that_it_is_no_larger_than() -> None:
    meters = Meters("w")
    for duration_s in (0.01, 0.0100001, 0.64, 82.0, -0.001):  # a clock may go backwards
        meters.of("m", "chat", "").done(200, duration_s)
    total, buckets = histogram(told(meters.snapshot(0)), metrics.REQUEST_DURATION, "m", "chat")
    assert buckets == {0.01: 2, 0.02: 1, 0.64: 1, float("inf"): 1}
    assert total == pytest.approx(82.6590001)


def test_failures_are_quick_and_dont_make_durations_look_good() -> None:
    meters = Meters("w")
    for status in (400, 429, 503, CALLER_LEFT):
        meters.of("m", "chat", "").done(status, 0.001, 0.001, 5, 5, 5)
    assert not [name for name, _ in told(meters.snapshot(0)) if name.endswith("_seconds")]


def test_keys_share_histograms() -> None:
    meters = Meters("w")
    for key in ("alice", "bob"):
        meters.of("m", "chat", key).done(200, 0.5)
    total, buckets = histogram(told(meters.snapshot(0)), metrics.REQUEST_DURATION, "m", "chat")
    assert (total, buckets) == (1.0, {0.64: 2})


def test_a_stream_has_a_first_token_and_a_time_for_each_other_one() -> None:
    meters = Meters("w")
    meters.of("m", "chat", "").done(200, 2.2, 0.2, 10, 11)
    now = told(meters.snapshot(0))
    assert histogram(now, metrics.TIME_TO_FIRST_TOKEN, "m", "chat") == (0.2, {0.25: 1})
    total, buckets = histogram(now, metrics.TIME_PER_OUTPUT_TOKEN, "m", "chat")
    assert total == pytest.approx(0.2)
    assert sum(buckets.values()) == 1


def test_what_is_no_stream_has_no_first_token() -> None:
    meters = Meters("w")
    meters.of("m", "chat", "").done(200, 2.2, 0.0, 10, 11)
    meters.of("m", "chat", "").done(200, 2.2, 0.2)  # a stream without usage
    meters.of("m", "chat", "").done(200, 2.2, 0.2, 3, 1)  # one token has none after it
    now = told(meters.snapshot(0))
    assert histogram(now, metrics.TIME_TO_FIRST_TOKEN, "m", "chat")[1] == {0.25: 2}
    assert (metrics.TIME_PER_OUTPUT_TOKEN.name, ("m", "chat")) not in now


def test_tokens_are_counted_for_each_key() -> None:
    meters = Meters("w")
    for key, tokens in (("alice", (10, 3, 4)), ("alice", (1, 0, 0)), ("bob", (0, 2, 0))):
        meters.of("m", "chat", key).done(200, 1.0, 0.0, *tokens)
    now = told(meters.snapshot(0))
    of_alice = [value(now, metrics.TOKENS, "m", "chat", "alice", kind) for kind in ("input", "output", "cached")]
    assert of_alice == [11, 3, 4]
    assert [labels[3] for name, labels in now if name == metrics.TOKENS.name and labels[2] == "bob"] == ["output"]


def test_errors_say_who_failed() -> None:
    meters = Meters("w")
    meters.failed("", answers.REQUEST, "model_not_found")
    meters.failed("m", answers.SERVER, "queue_full")
    for _ in range(2):
        meters.failed("m", answers.ENGINE, "engine_lost")
    now = told(meters.snapshot(0))
    assert value(now, metrics.ERRORS, "", "model_not_found", "request") == 1
    assert value(now, metrics.ERRORS, "m", "queue_full", "server") == 1
    assert value(now, metrics.ERRORS, "m", "engine_lost", "engine") == 2


def test_waits_and_retries_are_counted_by_model() -> None:
    meters = Meters("w")
    meters.waited("m", 4.0)
    meters.waited("m", 700.0)
    meters.retried("m")
    now = told(meters.snapshot(0))
    assert histogram(now, metrics.QUEUE_TIME, "m") == (704.0, {5.0: 1, float("inf"): 1})
    assert value(now, metrics.RETRIES, "m") == 1


def test_a_snapshot_has_only_what_has_changed_and_counts_on() -> None:
    meters = Meters("w")
    for model in ("a", "b"):
        meters.of(model, "chat", "").done(200, 1.0)
        meters.retried(model)
    assert meters.snapshot(3)
    assert meters.snapshot(3) == ()
    meters.of("b", "chat", "").done(200, 1.0)
    meters.retried("b")
    now = told(meters.snapshot(3))
    assert {labels[0] for _, labels in now} == {"b"}
    assert value(now, metrics.REQUESTS, "b", "chat", "", "200") == 2
    assert value(now, metrics.RETRIES, "b") == 2


def test_connections_are_told_when_they_change() -> None:
    meters = Meters("gateway-1")
    assert value(told(meters.snapshot(0)), metrics.GATEWAY_CONNECTIONS, "gateway-1") == 0
    assert value(told(meters.snapshot(7)), metrics.GATEWAY_CONNECTIONS, "gateway-1") == 7
    assert meters.snapshot(7) == ()


def test_a_new_controller_is_told_everything() -> None:
    meters = Meters("w")
    for model in ("a", "b"):
        meters.of(model, "chat", "").done(200, 1.0)
    meters.waited("a", 1.0)
    before = told(meters.snapshot(3))
    meters.of("b", "chat", "").done(200, 1.0)  # changed, and to be told once all the same
    meters.resend()
    after = told(meters.snapshot(3))
    assert after.keys() == before.keys()
    assert value(after, metrics.REQUESTS, "b", "chat", "", "200") == 2


def test_a_snapshot_is_bounded_and_the_next_one_goes_on() -> None:
    meters = Meters("w")
    for number in range(5):
        meters.of("m", "chat", f"key-{number}").done(200, 1.0)
        meters.retried(f"m-{number}")
    parts = [told(meters.snapshot(0, limit=2)) for _ in range(4)]
    keys = [[labels[2] for name, labels in part if name == metrics.REQUESTS.name] for part in parts]
    assert keys == [["key-0", "key-1"], ["key-2", "key-3"], ["key-4"], []]
    retried = {labels[0] for part in parts for name, labels in part if name == metrics.RETRIES.name}
    assert retried == {f"m-{number}" for number in range(5)}


def test_keys_beyond_the_limit_are_others() -> None:
    meters = Meters("w", limit=3)
    for number in range(10):
        meters.of("m", "chat", f"key-{number}").done(200, 1.0)
    meters.of("n", "chat", "key-0").done(200, 1.0)
    now = told(meters.snapshot(0))
    assert sum(count for (name, _), (count, *_) in now.items() if name == metrics.REQUESTS.name) == 11
    assert value(now, metrics.REQUESTS, "m", "chat", "other", "200") == 7
    assert value(now, metrics.REQUESTS, "n", "chat", "other", "200") == 1


def test_a_full_snapshot_fits_into_a_line_of_the_link() -> None:
    meters = Meters("w")
    for number in range(METERS_A_SNAPSHOT):
        meter = meters.of(
            f"organisation/a-model-with-a-long-name-{number}", "transcriptions", f"a-customers-key-{number}"
        )
        for status in (200, 400, 429, 503):
            meter.done(status, 81.123456789, 0.123456789, 10**9, 10**9, 10**9)
    load = Load(table=1, in_flight={}, meters=meters.snapshot(0))
    line = encode(load)
    assert len(line) < 1 << 20
    assert decode_from_worker(line) == load

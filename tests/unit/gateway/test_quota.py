"""Quotas: what is admitted, what is turned away, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelgrid.gateway.ledger import Ledger
from modelgrid.gateway.quota import Gate, Limit, Refusal
from modelgrid.gateway.rows import Rows
from modelgrid.spec.messages import Quota

MINUTE = 1_000 * 60.0  # where a minute begins


@pytest.fixture(params=[0, 5], ids=["own counts", "a slot"])
def slot(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def rows() -> Iterator[Rows]:
    made = Rows(8)
    yield made
    made.close()


def _gates(rows: Rows, count: int, quota: Quota) -> list[Gate]:
    """The same quota, in as many workers."""
    return [Gate(Ledger.shared(rows.path, rows.take()), 5, quota) for _ in range(count)]


def _admitted(gate: Gate, attempts: int, now: float) -> int:
    return sum(gate.admit(now) is None for _ in range(attempts))


def test_without_limits_everybody_is_admitted(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota())
    assert _admitted(gate, 1000, MINUTE) == 1000
    gate.spend(10**12, MINUTE)
    gate.release()
    assert gate.admit(MINUTE) is None


def test_concurrency_is_what_is_admitted_and_not_released(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(concurrency=2))
    assert _admitted(gate, 5, MINUTE) == 2
    assert gate.admit(MINUTE) == Refusal(Limit.CONCURRENCY, 2, 1)
    gate.release()
    assert _admitted(gate, 5, MINUTE) == 1


def test_requests_of_a_minute_are_admitted_at_once_and_more_of_them_as_the_minute_fades(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(requests_per_minute=60))
    assert _admitted(gate, 100, MINUTE) == 60
    assert _admitted(gate, 100, MINUTE + 59.9) == 0
    assert _admitted(gate, 100, MINUTE + 60.0) == 0
    assert _admitted(gate, 100, MINUTE + 75.0) == 15
    assert _admitted(gate, 100, MINUTE + 119.9) == 44
    assert _admitted(gate, 100, MINUTE + 3600.0) == 60


def test_requests_that_are_turned_away_count_for_nothing(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(requests_per_minute=60))
    assert _admitted(gate, 10_000, MINUTE) == 60
    assert _admitted(gate, 10_000, MINUTE + 120.0) == 60


def test_tokens_are_known_afterwards_and_the_next_request_is_turned_away(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(tokens_per_minute=100))
    assert gate.admit(MINUTE) is None
    gate.spend(99, MINUTE + 1)
    assert gate.admit(MINUTE + 1) is None
    gate.spend(1, MINUTE + 1)
    assert gate.admit(MINUTE + 1) == Refusal(Limit.TOKENS, 100, 60)  # a little more than a token has faded by then
    assert gate.admit(MINUTE + 61) is None


def test_a_request_that_is_turned_away_elsewhere_is_as_if_it_had_not_been(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(requests_per_minute=1, concurrency=1))
    for _ in range(3):
        assert gate.admit(MINUTE) is None
        gate.withdraw(MINUTE)


def test_a_request_that_is_turned_away_in_a_later_minute_takes_nothing_from_that_one(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(requests_per_minute=2))
    assert gate.admit(MINUTE + 59) is None
    assert gate.admit(MINUTE + 59) is None
    assert gate.admit(MINUTE + 121) is None
    gate.withdraw(MINUTE + 59)
    assert gate.admit(MINUTE + 121) is None
    assert gate.admit(MINUTE + 121) is not None


@pytest.mark.parametrize(
    ("quota", "limit"), [(Quota(requests_per_minute=0), Limit.REQUESTS), (Quota(tokens_per_minute=0), Limit.TOKENS)]
)
def test_a_limit_of_nothing_lets_nobody_in(quota: Quota, limit: Limit, slot: int) -> None:
    assert Gate(Ledger.alone(), slot, quota).admit(MINUTE) == Refusal(limit, 0, 60)


def test_the_first_limit_that_is_reached_leaves_the_others_as_they_were(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(concurrency=1, requests_per_minute=2, tokens_per_minute=100))
    assert gate.admit(MINUTE) is None
    assert gate.admit(MINUTE) == Refusal(Limit.CONCURRENCY, 1, 1)
    gate.release()
    assert gate.admit(MINUTE) is None
    gate.release()
    refused = gate.admit(MINUTE)
    assert refused is not None
    assert refused.limit is Limit.REQUESTS
    assert gate.admit(MINUTE + 120) is None  # nothing is left in flight


def test_a_newer_table_leaves_the_counts_as_they_are(slot: int) -> None:
    gate = Gate(Ledger.alone(), slot, Quota(requests_per_minute=10, concurrency=5))
    assert _admitted(gate, 4, MINUTE) == 4
    newer = gate.again(slot, Quota(requests_per_minute=6, concurrency=20))
    assert _admitted(newer, 10, MINUTE + 1) == 2
    gate.release()


def test_slotless_gates_count_each_for_itself() -> None:
    ledger = Ledger.alone()
    one, two = (Gate(ledger, 0, Quota(concurrency=1)) for _ in range(2))
    assert (one.admit(MINUTE), two.admit(MINUTE)) == (None, None)


def test_workers_share_a_quota(rows: Rows) -> None:
    quota = Quota(concurrency=30, requests_per_minute=40, tokens_per_minute=50)
    one, two, three = _gates(rows, 3, quota)
    assert _admitted(one, 20, MINUTE) + _admitted(two, 20, MINUTE) + _admitted(three, 20, MINUTE) == 30
    for _ in range(20):
        one.release()
    assert _admitted(three, 20, MINUTE + 1) == 10
    refused = two.admit(MINUTE + 1)
    assert refused is not None
    assert refused.limit is Limit.REQUESTS
    three.spend(50, MINUTE + 1)
    refused = one.admit(MINUTE + 1)
    assert refused is not None
    assert refused.limit is Limit.TOKENS


def test_a_minute_is_everybodys_whether_they_had_requests_in_it_or_not(rows: Rows) -> None:
    one, two = _gates(rows, 2, Quota(requests_per_minute=60))
    assert _admitted(one, 60, MINUTE + 59) == 60
    assert _admitted(two, 60, MINUTE + 60) == 0  # the row of the first still shows the minute before
    assert _admitted(two, 60, MINUTE + 90) == 30
    assert _admitted(two, 60, MINUTE + 120) == 30
    assert _admitted(one, 60, MINUTE + 240) == 60
    assert _admitted(two, 60, MINUTE + 239.999) == 0  # its clock was read a moment earlier


def test_a_worker_that_is_replaced_leaves_what_was_used_of_the_minute(rows: Rows) -> None:
    quota = Quota(requests_per_minute=60, concurrency=60)
    row = rows.take()
    old = Gate(Ledger.shared(rows.path, row), 5, quota)
    assert _admitted(old, 40, MINUTE) == 40
    (new,) = _gates(rows, 1, quota)
    assert _admitted(new, 60, MINUTE) == 20
    rows.give_back(row, MINUTE)  # with 40 in flight, as somebody killed it
    assert _admitted(new, 60, MINUTE + 75) == 15
    (third,) = _gates(rows, 1, quota)  # in the first one's row
    assert _admitted(third, 60, MINUTE + 80) == 5
    assert rows.take() == 2


def test_a_row_whose_last_worker_had_a_later_clock_keeps_what_is_in_it(rows: Rows) -> None:
    quota = Quota(requests_per_minute=60)
    row = rows.take()
    assert _admitted(Gate(Ledger.shared(rows.path, row), 5, quota), 100, MINUTE + 60) == 60
    rows.give_back(row, MINUTE + 60)
    (new,) = _gates(rows, 1, quota)
    assert _admitted(new, 100, MINUTE + 59.999) == 0
    assert _admitted(new, 100, MINUTE + 60) == 0


QUOTAS = st.builds(
    Quota,
    requests_per_minute=st.none() | st.integers(1, 8),
    tokens_per_minute=st.none() | st.integers(1, 40),
    concurrency=st.none() | st.integers(1, 4),
)
# Who, what, and how long after the last.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["admit", "admit", "admit", "release", "spend"]),
        st.integers(0, 10),
        st.sampled_from([0.0, 0.0, 0.25, 3.0, 17.0, 61.0, 200.0]),
    ),
    max_size=60,
)


class Model:
    """The same rules over lists of everything that happened, with nothing to share."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.in_flight = 0
        self.requests: list[tuple[float, int]] = []
        self.tokens: list[tuple[float, int]] = []

    def reached(self, now: float) -> set[Limit]:
        """The limits that keep one more request out."""
        quota, found = self.quota, set()
        if quota.concurrency is not None and self.in_flight + 1 > quota.concurrency:
            found.add(Limit.CONCURRENCY)
        if quota.requests_per_minute is not None and _window(self.requests, now) + 1 > quota.requests_per_minute:
            found.add(Limit.REQUESTS)
        if quota.tokens_per_minute is not None and _window(self.tokens, now) + 1 > quota.tokens_per_minute:
            found.add(Limit.TOKENS)
        return found


def _window(counted: list[tuple[float, int]], now: float) -> float:
    minute = now // 60
    current = sum(count for at, count in counted if at // 60 == minute)
    before = sum(count for at, count in counted if at // 60 == minute - 1)
    return current + before * ((minute + 1) * 60 - now) / 60


@settings(max_examples=300, deadline=None)
@given(quota=QUOTAS, steps=STEPS, workers=st.integers(1, 3), shared=st.booleans())
def test_workers_together_keep_the_rules_and_tell_when_there_is_room(
    quota: Quota, steps: list[tuple[int, str, int, float]], workers: int, shared: bool
) -> None:
    rows = Rows(8)
    try:
        workers = workers if shared else 1
        gates = _gates(rows, workers, quota) if shared else [Gate(Ledger.alone(), 5, quota)]
        in_flight = [0] * workers
        model = Model(quota)
        now = MINUTE
        for who, what, count, pause_s in steps:
            who %= workers
            now += pause_s
            if what == "admit":
                reached = model.reached(now)
                refusal = gates[who].admit(now)
                assert (refusal is None) == (not reached), (refusal, reached)
                if refusal is None:
                    in_flight[who] += 1
                    model.in_flight += 1
                    model.requests.append((now, 1))
                else:
                    assert refusal.limit in reached
                    assert refusal.retry_after_s >= 1
                    if refusal.limit is not Limit.CONCURRENCY:
                        later = now + refusal.retry_after_s
                        assert refusal.limit not in model.reached(later)
                        too_early = later - 1.01 - 0.1  # rounded up, and a little more
                        assert too_early <= now or refusal.limit in model.reached(too_early)
            elif what == "release" and in_flight[who]:
                gates[who].release()
                in_flight[who] -= 1
                model.in_flight -= 1
            elif what == "spend":
                gates[who].spend(count, now)
                model.tokens.append((now, count))
    finally:
        rows.close()

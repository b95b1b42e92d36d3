"""What a worker counts for what is paid: once for each request, and told until it is known."""

from __future__ import annotations

from modelgrid.gateway.accounts import ACCOUNTS_A_LOAD, CALLER_LEFT, Accounts
from modelgrid.gateway.meters import Meters
from modelgrid.spec.messages import Load, decode_from_worker, encode
from modelgrid.spec.usage import Counts, Used


def test_a_request_is_counted_once_however_it_ends() -> None:
    accounts = Accounts()
    account = accounts.of("k", "m", "chat")
    account.close(200, 1.5)
    account.close(503, 0.5)
    account.close(CALLER_LEFT, 1.0)
    account.close(200, 1.0, True)
    assert accounts.settle() == (Used("k", "m", "chat", Counts(requests=4, errors=2, left=1, seconds=4.0)),)


def test_what_engines_told_is_apart_from_what_was_estimated() -> None:
    accounts = Accounts()
    account = accounts.of("k", "m", "chat")
    for _ in range(2):
        account.close(200, 0.0)
        account.spend(10, 3, 4)
        account.estimate(7, 2)
        account.make(1, 2.5)
    (used,) = accounts.settle()
    assert used.counts == Counts(2, 0, 0, 0.0, 20, 6, 8, 14, 4, 2, 5.0)


def test_only_what_has_changed_is_told_and_it_counts_on() -> None:
    accounts = Accounts()
    accounts.of("k", "a", "chat").close(200, 0.0)
    accounts.of("k", "b", "chat").close(200, 0.0)
    assert [used.model for used in accounts.settle()] == ["a", "b"]
    accounts.of("k", "b", "chat").close(200, 0.0)
    assert [(used.model, used.counts.requests) for used in accounts.settle()] == [("b", 2)]


def test_a_new_controller_is_told_everything_once() -> None:
    meters = Meters("w")
    for model in ("a", "b"):
        meters.accounts.of("k", model, "chat").close(200, 0.0)
    meters.accounts.settle()
    meters.accounts.of("k", "b", "chat").close(200, 0.0)
    meters.resend()
    assert {used.model: used.counts.requests for used in meters.accounts.settle()} == {"a": 1, "b": 2}
    assert meters.accounts.settle() == ()


def test_what_is_not_told_yet_keeps_a_worker_from_ending() -> None:
    meters = Meters("w")
    meters.snapshot(0)
    assert meters.is_told
    meters.accounts.of("k", "m", "chat").close(200, 0.0)
    assert not meters.is_told


def test_a_part_is_told_and_the_next_time_goes_on() -> None:
    accounts = Accounts()
    for number in range(5):
        accounts.of(f"k{number}", "m", "chat").close(200, 0.0)
    assert [[used.key for used in accounts.settle(2)] for _ in range(3)] == [["k0", "k1"], ["k2", "k3"], ["k4"]]


def test_keys_beyond_the_limit_are_others_and_nothing_is_lost() -> None:
    accounts = Accounts(limit=2)
    for number in range(10):
        accounts.of(f"k{number}", "m", "chat").close(200, 0.0)
    told = accounts.settle()
    assert {used.key: used.counts.requests for used in told} == {"k0": 1, "k1": 1, "other": 8}


def test_a_full_part_is_no_long_line() -> None:
    accounts = Accounts()
    for number in range(ACCOUNTS_A_LOAD):
        account = accounts.of(f"0123{number:04}", f"organisation/a-model-with-a-long-name-{number}", "transcriptions")
        account.close(200, 81.123456789)
        account.spend(10**12, 10**12, 10**12)
        account.estimate(10**12, 10**12)
    load = Load(table=1, in_flight={}, used=accounts.settle())
    line = encode(load)
    assert len(line) < 150_000
    assert decode_from_worker(line) == load

"""What callers say of waiting is read as they mean it, or refused with what it may be."""

from __future__ import annotations

import pytest

from modelgrid.gateway.wishes import HIGHEST, LEVEL_S, NAMED, WishError, Wishes, priority_of, rank, read_wishes

PRIORITY, TIMEOUT, PROGRESS = b"x-modelgrid-priority", b"x-modelgrid-timeout", b"x-modelgrid-progress"
NORMAL = NAMED["normal"]


def said(headers: dict[bytes, bytes]) -> tuple[int | None, float | None, bool | None]:
    wishes = read_wishes(headers)
    assert wishes is not None
    return wishes.priority, wishes.timeout_s, wishes.progress


@pytest.mark.parametrize(
    ("sent", "priority"),
    [(b"high", 50), (b"Normal", 0), (b"low", -50), (b"100", 100), (b"-100", -100), (b"+7", 7), (b"0", 0)],
)
def test_a_priority_is_a_name_or_a_number(sent: bytes, priority: int) -> None:
    assert said({PRIORITY: sent}) == (priority, None, None)


@pytest.mark.parametrize(
    ("sent", "timeout_s"), [(b"30", 30.0), (b"0.5", 0.5), (b"30s", 30.0), (b"2m", 120.0), (b"500ms", 0.5), (b"0", 0.0)]
)
def test_a_timeout_is_a_duration(sent: bytes, timeout_s: float) -> None:
    assert said({TIMEOUT: sent}) == (None, timeout_s, None)


@pytest.mark.parametrize(("sent", "progress"), [(b"1", True), (b"TRUE", True), (b"0", False), (b"false", False)])
def test_progress_is_wanted_or_not(sent: bytes, progress: bool) -> None:
    assert said({PROGRESS: sent}) == (None, None, progress)


def test_other_headers_say_nothing() -> None:
    assert read_wishes({b"x-priority": b"high", b"host": b"localhost"}) is None


@pytest.mark.parametrize(
    ("header", "sent", "step"),
    [
        (PRIORITY, b"urgent", "send high, normal, low, or a whole number from -100 to 100"),
        (PRIORITY, b"101", "from -100 to 100"),
        (PRIORITY, b"-101", "from -100 to 100"),
        (PRIORITY, b"1.5", "a whole number"),
        (PRIORITY, b"", "a whole number"),
        (PRIORITY, b"high, low", "a whole number"),
        (PRIORITY, "\u0661".encode(), "a whole number"),
        (TIMEOUT, b"soon", "for example 30s or 2m"),
        (TIMEOUT, b"-1", "a number of seconds"),
        (TIMEOUT, b"nan", "a number of seconds"),
        (TIMEOUT, b"inf", "a number of seconds"),
        (TIMEOUT, b"", "a number of seconds"),
        (PROGRESS, b"yes please", "send 1 or true, 0 or false"),
    ],
)
def test_what_cant_be_read_is_named_with_what_it_may_be(header: bytes, sent: bytes, step: str) -> None:
    with pytest.raises(WishError) as raised:
        read_wishes({header: sent})
    assert raised.value.header == header.decode()
    assert str(raised.value).startswith(f"cannot read the header {header.decode()}: ")
    assert step in str(raised.value)


def test_a_long_value_isnt_repeated_whole() -> None:
    with pytest.raises(WishError) as raised:
        read_wishes({PRIORITY: b"x" * 5000})
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize(
    ("body", "priority"),
    [
        (b'{"model":"m","service_tier":"priority"}', 50),
        (b'{"service_tier":"flex","model":"m"}', -50),
        (b'{"service_tier":"default"}', NORMAL),
        (b'{"service_tier":"auto"}', NORMAL),
        (b'{"service_tier":"standard_only"}', NORMAL),
        (b'{"service_tier":null}', NORMAL),
        (b'{"service_tier":["priority"]}', NORMAL),
        (b'{"messages":[{"service_tier":"priority"}]}', NORMAL),
        (b'{"priority":-5}', NORMAL),  # vLLM's own, for its own queue
        (b'{"service_tier":"priority",NaN', NORMAL),
        (b"", NORMAL),
    ],
)
def test_the_tier_of_the_body_is_a_priority(body: bytes, priority: int) -> None:
    assert priority_of(None, body) == priority
    assert priority_of(Wishes(timeout_s=1.0), body) == priority


def test_the_header_goes_before_the_body() -> None:
    assert priority_of(Wishes(priority=0), b'{"service_tier":"priority"}') == 0


def test_nobody_is_behind_who_comes_later_than_all_levels_are_worth() -> None:
    longest_s = 2 * HIGHEST * LEVEL_S
    assert rank(-HIGHEST, 1000.0) < rank(HIGHEST, 1000.0 + longest_s + 1.0)
    assert rank(HIGHEST, 1000.0 + longest_s - 1.0) < rank(-HIGHEST, 1000.0)

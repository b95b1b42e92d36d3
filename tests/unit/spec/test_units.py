"""Sizes and durations, as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.spec.units import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16GiB", 16 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5 GiB", 3 * 2**29),
        (" 2g ", 2 * 2**30),
        ("7b", 7),
        ("1TB", 10**12),
        (1234, 1234),
        ("0", 0),
        (2**60 + 1, 2**60 + 1),
        ("9" * 400, 10**400),  # beyond any disk, 28 figures do
    ],
    ids=lambda value: str(value)[:20],
)
def test_sizes_are_read(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "16 GiBB", "-1", "1e3", "1,5GiB", "0x10", "nan", "1 2", True])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size \(write for example 16GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("1m 30s", None),
        ("90", 90.0),
        (" 90S ", 90.0),
        (0.25, 0.25),
        (0, 0.0),
    ],
)
def test_durations_are_read(text: str | float, expected: float | None) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="is not a duration"):
            parse_seconds(text)
    else:
        assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-5s", "5 minutes", "1h30", "nan", "inf", True, -1, float("nan")])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102_349, "100 KiB"),
        (100 * 2**20, "100 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**30 - 1, "1.0 GiB"),
        (int(23.46 * 2**30), "23.5 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (5000 * 2**40, "5000.0 TiB"),
    ],
)
def test_sizes_are_shown_shortly(count: int, expected: str) -> None:
    assert format_bytes(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0ms"),
        (0.85, "850ms"),
        (0.9999, "1.0s"),
        (4.21, "4.2s"),
        (59.97, "1m00s"),
        (200, "3m20s"),
        (3599.7, "1h00m"),
        (7500, "2h05m"),
        (86399.9, "1d00h"),
        (273_600, "3d04h"),
    ],
)
def test_durations_are_shown_shortly(seconds: float, expected: str) -> None:
    assert format_seconds(seconds) == expected


@given(st.integers(min_value=0, max_value=2**50))
def test_a_size_that_is_shown_can_be_read_again(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.06)


@given(st.floats(min_value=0, max_value=10**8))
def test_a_duration_that_is_shown_can_be_read_again(seconds: float) -> None:
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, rel=0.06, abs=0.001)

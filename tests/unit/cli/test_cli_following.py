"""What is new in a log of which one sees only the end."""

from __future__ import annotations

import pytest

from modelgrid.cli.logs import new_lines


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "", ""),
        ("", "ab", "ab"),
        ("ab", "ab", ""),
        ("ab", "abc", "c"),
        ("abc", "bcd", "d"),
        ("abc", "cde", "de"),
        ("abc", "xyz", "xyz"),  # all of it moved by: nothing is left to go on from
        ("aab", "abab", "ab"),
        ("abab", "ababab", "ab"),
        ("abc", "", ""),  # emptied
    ],
)
def test_new_lines_are_what_comes_after_the_old(before: str, now: str, new: str) -> None:
    assert "".join(new_lines(list(before), list(now))) == new

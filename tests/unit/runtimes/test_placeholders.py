"""Placeholders of a launch."""

from __future__ import annotations

import pytest

from modelgrid.runtimes.placeholders import fill


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("--port={port}", "--port=8000"),
        ("{host}:{port}", "127.0.0.1:8000"),
        ("{{port}", "{port}"),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
        ('{{"a":{{"port": {port}}}', '{"a":{"port": 8000}}'),
        ("{unknown} {PORT} {}", "{unknown} {PORT} {}"),
    ],
)
def test_known_names_are_filled_in_and_all_else_stays(text: str, filled: str) -> None:
    assert fill(text, {"port": "8000", "host": "127.0.0.1"}) == filled

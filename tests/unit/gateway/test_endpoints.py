"""The table of endpoints."""

from __future__ import annotations

import pytest

from modelgrid.gateway.endpoints import Act, Found, WrongMethod, find_endpoint


def found(method: str, path: str) -> tuple[Act, str | None]:
    result = find_endpoint(method, path)
    assert isinstance(result, Found)
    return result.endpoint.act, result.model


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", (Act.RELAY, None)),
        ("POST", "/v1/embeddings", (Act.RELAY, None)),
        ("POST", "/v1/chat/mine", (Act.PLAIN, "mine")),
        ("POST", "/v1/chat/Qwen/Qwen2.5-7B", (Act.PLAIN, "Qwen/Qwen2.5-7B")),
        ("POST", "/v1/chat/Qwen%2FQwen2.5%207B", (Act.PLAIN, "Qwen/Qwen2.5 7B")),
        ("GET", "/v1/models", (Act.MODELS, None)),
        ("GET", "/v1/models/", (Act.MODELS, None)),
        ("HEAD", "/v1/models", (Act.MODELS, None)),
        ("GET", "/v1/models/a/b", (Act.MODEL, "a/b")),
        ("GET", "/health", (Act.HEALTH, None)),
        ("HEAD", "/", (Act.ROOT, None)),
    ],
)
def test_a_path_finds_its_endpoint_and_model(method: str, path: str, expected: tuple[Act, str | None]) -> None:
    assert found(method, path) == expected


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", ("POST",)),
        ("DELETE", "/v1/models/a", ("GET", "HEAD")),
        ("POST", "/health", ("GET", "HEAD")),
    ],
)
def test_a_wrong_method_names_the_right_ones(method: str, path: str, allow: tuple[str, ...]) -> None:
    assert find_endpoint(method, path) == WrongMethod(allow)


@pytest.mark.parametrize("path", ["/v1", "/v1/chat/", "/v1/modelsx", "/metrics", "*", "/update_weights", "//v1/models"])
def test_what_is_not_in_the_table_is_not_there(path: str) -> None:
    assert find_endpoint("POST", path) is None

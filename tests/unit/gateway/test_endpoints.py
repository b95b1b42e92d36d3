"""The table of endpoints."""

from __future__ import annotations

import pytest

from modelgrid.gateway.endpoints import ENDPOINTS, Act, Found, WrongMethod, find_endpoint


def found(method: str, path: str) -> tuple[Act, str]:
    result = find_endpoint(method, path)
    assert isinstance(result, Found)
    return result.endpoint.act, result.model


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", (Act.RELAY, "")),
        ("POST", "/v1/embeddings", (Act.RELAY, "")),
        ("POST", "/v1/chat/mine", (Act.PLAIN, "mine")),
        ("POST", "/v1/chat/Qwen/Qwen2.5-7B", (Act.PLAIN, "Qwen/Qwen2.5-7B")),
        ("POST", "/v1/chat/Qwen%2FQwen2.5%207B", (Act.PLAIN, "Qwen/Qwen2.5 7B")),
        ("GET", "/v1/models", (Act.MODELS, "")),
        ("GET", "/v1/models/", (Act.MODELS, "")),
        ("HEAD", "/v1/models", (Act.MODELS, "")),
        ("GET", "/v1/models/a/b", (Act.MODEL, "a/b")),
        ("GET", "/health", (Act.HEALTH, "")),
        ("HEAD", "/", (Act.ROOT, "")),
    ],
)
def test_a_path_finds_its_endpoint_and_model(method: str, path: str, expected: tuple[Act, str]) -> None:
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


@pytest.mark.parametrize("path", ["/v1", "/v1/chat/", "/v1/modelsx", "*", "/update_weights", "//v1/models"])
def test_what_is_not_in_the_table_is_not_there(path: str) -> None:
    assert find_endpoint("POST", path) is None


@pytest.mark.parametrize(
    ("method", "path", "engines"),
    [
        ("POST", "/v1/chat/completions", b"/chat/completions"),
        ("POST", "/v1/rerank", b"/rerank"),
        ("GET", "/v1/responses/resp_1", b"/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel", b"/responses/resp_1/cancel"),
        ("GET", "/v1/videos/video-1.2/content", b"/videos/video-1.2/content"),
        ("POST", "/v1/chat/mine", b"/chat/completions"),
    ],
)
def test_what_is_below_v1_is_below_an_engines_base(method: str, path: str, engines: bytes) -> None:
    result = find_endpoint(method, path)
    assert isinstance(result, Found)
    assert (result.path, result.is_rooted) == (engines, False)


@pytest.mark.parametrize("path", ["/tokenize", "/rerank", "/v2/rerank", "/infill"])
def test_what_is_not_stands_beside_it(path: str) -> None:
    result = find_endpoint("POST", path)
    assert isinstance(result, Found)
    assert (result.path, result.is_rooted) == (path.encode(), True)


@pytest.mark.parametrize("id_", ["..", ".", "...", "a%2fb", "a/b", "a;b", "%2e%2e", "a?b", "a\\b", "a b"])
def test_an_id_is_one_plain_segment(id_: str) -> None:
    assert find_endpoint("GET", f"/v1/responses/{id_}/input_items") is None
    assert find_endpoint("DELETE", f"/v1/responses/{id_}") is None


def test_no_two_rows_are_the_same() -> None:
    assert len({(row.method, row.path) for row in ENDPOINTS}) == len(ENDPOINTS)

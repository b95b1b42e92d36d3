"""The rerank service: what it reads and what it answers, in the shapes of Cohere, Jina and vLLM."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from modelgrid.services.rerank import GATHERED_LIMIT, Rerank
from modelgrid.services.service import Options
from modelgrid.services.tokens import CHARACTERS_A_TOKEN, PIECE_CHARACTERS, Tokens
from modelgrid.services.work import Caller, Left, Turn

DOCUMENTS = ["rain on a window", "Paris is the capital of France", "France"]


class Scores(list[float]):
    """What the library answers: an array."""

    def tolist(self) -> list[float]:
        return list(self)


class Model:
    """Stands for a cross-encoder of the library: it counts the words that a document shares with the query."""

    max_seq_length = 9
    num_labels = 1
    config = SimpleNamespace(architectures=["BertForSequenceClassification"])

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @staticmethod
    def tokenizer(
        texts: list[str], pairs: list[str] | None = None, *, truncation: bool, verbose: bool
    ) -> dict[str, list[list[int]]]:
        both = pairs or [""] * len(texts)
        return {"input_ids": [[0] * (1 + len(f"{a} {b}".split())) for a, b in zip(texts, both, strict=True)]}

    def predict(self, pairs: list[tuple[str, str]], *, activation_fn: Any, **more: object) -> Scores:
        self.entered.set()
        assert self.gate.wait(20)
        self.batches.append(len(pairs))
        return Scores([activation_fn(len(set(query.split()) & set(text.split()))) for query, text in pairs])


def bounded(value: float) -> float:
    return value / 10


class Ready(Rerank):
    """The service with such a model, as if it had been loaded."""

    def load(self) -> None:
        self.take(Model(), bounded)


@pytest.fixture
def service() -> Ready:
    return Ready(Options(name="judge", model="owner/judge"))


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


def post(client: TestClient, path: str, **body: object) -> Any:
    return client.post(path, content=json.dumps(body)).json()


def test_the_best_documents_come_first(client: TestClient) -> None:
    answer = post(client, "/v1/rerank", model="judge", query="capital of France", documents=DOCUMENTS, top_n=2)
    assert re.fullmatch("rerank-[0-9a-f]{32}", answer.pop("id"))
    assert answer == {
        "object": "list",
        "model": "judge",
        "results": [
            {"index": 1, "relevance_score": 0.3, "document": {"text": "Paris is the capital of France"}},
            {"index": 2, "relevance_score": 0.1, "document": {"text": "France"}},
        ],
        "usage": {"prompt_tokens": 8 + 9 + 5, "total_tokens": 22},
        "meta": {"tokens": {"input_tokens": 22}},
    }


def test_documents_may_be_objects_and_equals_keep_their_order(client: TestClient) -> None:
    documents = [{"text": "one", "title": "x"}, "two", {"text": "three"}]
    found = post(client, "/rerank", query="q", documents=documents)["results"]
    assert [item["index"] for item in found] == [0, 1, 2]
    assert found[0]["document"] == {"text": "one"}


@pytest.mark.parametrize(
    ("path", "asked", "shows"),
    [
        ("/v1/rerank", None, True),
        ("/v2/rerank", None, False),
        ("/v1/rerank", False, False),
        ("/v2/rerank", True, True),
    ],
)
def test_documents_are_returned_as_the_path_or_the_caller_has_it(
    client: TestClient, path: str, asked: bool | None, shows: bool
) -> None:
    found = post(client, path, query="q", documents=["a"], return_documents=asked)["results"]
    assert ("document" in found[0]) == shows


@pytest.mark.parametrize(
    ("first", "second", "scores"),
    [
        ({"text_1": "a b"}, {"text_2": ["b", "a b", "c"]}, [0.1, 0.2, 0.0]),
        ({"text_1": ["a", "b"]}, {"text_2": ["b", "b"]}, [0.0, 0.1]),
        ({"queries": "a"}, {"documents": "a"}, [0.1]),
    ],
)
def test_pairs_are_scored_in_order(
    client: TestClient, first: dict[str, object], second: dict[str, object], scores: list[float]
) -> None:
    answer = post(client, "/v1/score", **first, **second)
    assert answer["data"] == [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("/v1/rerank", {"documents": ["a"]}, "query", "'query' is missing"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, "query", "at least 1 character"),
        ("/v1/rerank", {"query": "q"}, "documents", "'documents' is missing"),
        ("/v1/rerank", {"query": "q", "documents": []}, "documents", "it has 0 documents; from 1 to 2048"),
        ("/v1/rerank", {"query": "q", "documents": ["a"] * 2049}, "documents", "it has 2049 documents"),
        ("/v1/rerank", {"query": "q", "documents": "a"}, "documents", "it must be a list of texts"),
        ("/v1/rerank", {"query": "q", "documents": ["a", {"title": "x"}]}, "documents.1.text", "is missing"),
        ("/v1/rerank", {"query": "q", "documents": ["a", 7]}, "documents.1", "dictionary"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, "top_n", "greater than or equal to 1"),
        ("/v1/rerank", {"query": "a b c d e f g h", "documents": ["a"]}, "query", "9 tokens: judge takes 9 with a"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a"] * 3}, "text_1", "cannot score 2 texts against 3"),
        ("/v1/score", {"text_1": ["a"], "text_2": []}, "text_2", "it has 0 texts"),
        ("/v1/rerank", {"query": "q", "documents": ["a", "\ud800"]}, "documents.1.text", "one half of a pair"),
        ("/v1/score", {"text_1": "a", "text_2": ["\ud800"]}, "text_2.0", "U+D800"),
    ],
)
def test_what_cannot_be_judged(
    client: TestClient, path: str, body: dict[str, object], param: str, message: str
) -> None:
    answer = client.post(path, content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


def test_documents_that_are_too_long_are_shortened(client: TestClient) -> None:
    answer = post(client, "/v1/rerank", query="a", documents=["a " * 50])
    assert answer["results"][0]["relevance_score"] == 0.1
    assert answer["usage"]["total_tokens"] == 9


def test_no_model_is_shown_more_of_a_text_than_it_could_take(service: Ready, client: TestClient) -> None:
    shown: list[int] = []

    def predict(pairs: list[tuple[str, str]], **_: object) -> Scores:
        shown.extend(len(text) for _, text in pairs)
        return Scores([0.5])

    service._model.predict = predict
    post(client, "/v1/rerank", query="q", documents=["a" * 1_000_000])
    assert shown == [9 * CHARACTERS_A_TOKEN]


def test_requests_that_come_while_it_computes_are_computed_together(service: Ready, client: TestClient) -> None:
    model = service._model
    model.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(post, client, "/v1/rerank", query="a", documents=["a"])
        assert model.entered.wait(10)
        rest = [pool.submit(post, client, "/v1/rerank", query=query, documents=["b", "a"]) for query in ("a", "b")]
        while service._together.waiting < 2:
            pass
        model.gate.set()
        best = [answer.result()["results"][0]["index"] for answer in (first, *rest)]
    assert best == [0, 1, 0]
    assert model.batches == [1, 4]


def test_a_caller_who_leaves_stops_a_long_computation_between_two_pieces(service: Ready) -> None:
    service.load()
    caller = Caller()
    pairs = [("a", "a")] * (GATHERED_LIMIT + 1)
    assert len(service._predict(pairs, Turn([caller]))) == len(pairs)
    caller.leave()
    with pytest.raises(Left):
        service._predict(pairs, Turn([caller]))
    assert service._model.batches == [GATHERED_LIMIT, 1]


def test_a_model_that_would_judge_at_random_is_refused(service: Ready) -> None:
    model = Model()
    model.config = SimpleNamespace(architectures=["BertModel"])
    with pytest.raises(ValueError, match="owner/judge: it is an embedding model"):
        service.take(model, bounded)
    classes = Model()
    classes.num_labels = 3
    with pytest.raises(ValueError, match="it sorts texts into 3 classes"):
        service.take(classes, bounded)


def test_many_long_texts_are_counted_in_pieces_and_in_order() -> None:
    sizes: list[int] = []

    class Tokenizer:
        def __call__(self, texts: list[str], pairs: list[str], **_: object) -> dict[str, list[list[int]]]:
            sizes.append(sum(map(len, [*texts, *pairs])))
            return {"input_ids": [[0] * len(text) for text in texts]}

    lengths = [1, PIECE_CHARACTERS // 2, PIECE_CHARACTERS // 2, 3, PIECE_CHARACTERS * 2, 5, 0]
    counts = asyncio.run(Tokens(Tokenizer()).count(["a" * length for length in lengths], ["bb"] * 7))
    assert counts == lengths
    assert sum(sizes) == sum(lengths) + 14
    assert [size > PIECE_CHARACTERS for size in sizes] == [False, False, True, False]
    assert asyncio.run(Tokens(Tokenizer()).count([], [])) == []

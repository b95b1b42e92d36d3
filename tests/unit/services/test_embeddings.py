"""The embeddings service: what it reads, what it answers, and that requests are computed together."""

from __future__ import annotations

import base64
import json
import math
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from modelgrid.services.embeddings import GATHERED_LIMIT, Embeddings, pack, shorten
from modelgrid.services.service import Options
from modelgrid.services.work import Caller, Left, Turn


class Tokenizer:
    """Words are tokens; one is added, as models do."""

    def __len__(self) -> int:
        return 100

    def __call__(self, texts: list[str], truncation: bool, verbose: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0, *range(len(text.split()))] for text in texts]}

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return " ".join(f"w{token}" for token in tokens)


class Vectors(list[Any]):
    """What the library answers: an array."""

    def tolist(self) -> list[Any]:
        return list(self)


class Model:
    """Stands for a model of the library: vectors tell the length of their text."""

    tokenizer = Tokenizer()
    max_seq_length = 5
    similarity_fn_name = "cosine"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.roles: list[str] = []
        self.are_unit: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def get_embedding_dimension(self) -> int:
        return 3

    def encode(self, texts: list[str], *, role: str = "", normalize_embeddings: bool, **more: object) -> Vectors:
        self.entered.set()
        assert self.gate.wait(20)
        if "break" in texts:
            raise RuntimeError("a matrix is broken")
        if "large" in texts:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] data. DefaultCPUAllocator: can't allocate memory")
        self.batches.append(texts)
        self.roles.append(role)
        self.are_unit.append(normalize_embeddings)
        return Vectors([[float(len(text)), 3.0, 4.0] for text in texts])

    def encode_query(self, texts: list[str], **more: Any) -> Vectors:
        return self.encode(texts, role="query", **more)

    def encode_document(self, texts: list[str], **more: Any) -> Vectors:
        return self.encode(texts, role="document", **more)

    def similarity_pairwise(self, queries: list[list[float]], documents: list[list[float]]) -> Vectors:
        return Vectors([1 / (1 + abs(a[0] - b[0])) for a, b in zip(queries, documents, strict=True)])


class Ready(Embeddings):
    """The service with such a model, as if it had been loaded."""

    def load(self) -> None:
        self.take(Model())


@pytest.fixture
def service() -> Ready:
    return Ready(Options(name="mini"))


@pytest.fixture
def client(service: Ready) -> Iterator[TestClient]:
    with TestClient(service.app(), raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        yield client


def ask(client: TestClient, **body: object) -> Any:
    return client.post("/v1/embeddings", content=json.dumps(body)).json()


def test_a_string_a_list_and_tokens_are_embedded(client: TestClient) -> None:
    assert ask(client, input="ab cd") == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [5.0, 3.0, 4.0]}],
        "model": "mini",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    several = ask(client, input=["a", "abc"])
    assert [(item["index"], item["embedding"][0]) for item in several["data"]] == [(0, 1.0), (1, 3.0)]
    assert ask(client, input=[7, 8])["data"][0]["embedding"][0] == len("w7 w8")
    assert len(ask(client, input=[[7], [8, 9]])["data"]) == 2


def test_base64_is_what_openais_client_reads(client: TestClient) -> None:
    packed = ask(client, input="ab", encoding_format="base64")["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == (2.0, 3.0, 4.0)


def test_fewer_dimensions_have_length_one(client: TestClient) -> None:
    assert len(ask(client, input="abcd", dimensions=3)["data"][0]["embedding"]) == 3
    vector = ask(client, input="abcd", dimensions=2)["data"][0]["embedding"]
    assert vector == pytest.approx([0.8, 0.6])
    assert math.hypot(*vector) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "'input' is missing"),
        ({"input": []}, "input", "cannot read 'input': it is empty"),
        ({"input": ""}, "input", "cannot read 'input': it holds an empty string"),
        ({"input": None}, "input", "cannot read 'input': it must be a string"),
        ({"input": ["a", 1]}, "input", "cannot read 'input': it must be a string"),
        ({"input": [True]}, "input", "cannot read 'input': it must be a string"),
        ({"input": [100]}, "input", "'input' holds tokens outside of this model's vocabulary of 100"),
        ({"input": [[7], [-1]]}, "input", "'input' holds tokens outside of this model's vocabulary of 100"),
        ({"input": ["a"] * 2049}, "input", "it has 2049 items, at most 2048 are taken"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "should be 'float' or 'base64'"),
        ({"input": "a", "dimensions": 4}, "dimensions", "it must be a number from 1 to 3, which mini has"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"input": "a", "dimensions": True}, "dimensions", "should be a valid integer"),
        ({"input": "a", "input_type": "song"}, "input_type", "should be 'query'"),
        ({"input": ["a", "a b c d e"]}, "input", "cannot embed input 1: it has 6 tokens, mini takes 5"),
        ({"input": "a" * 321}, "input", "cannot embed input 0: it has 321 characters, mini takes 5 tokens"),
        ({"input": ["a", "b\ud800"]}, "input", "character 1 is U+D800, one half of a pair"),
    ],
)
def test_what_cannot_be_embedded(client: TestClient, body: dict[str, object], param: str, message: str) -> None:
    answer = client.post("/v1/embeddings", content=json.dumps(body))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert message in answer.json()["error"]["message"]


def test_requests_that_come_while_it_computes_are_computed_together(service: Ready, client: TestClient) -> None:
    model = service._model
    model.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, client, input="a")
        assert model.entered.wait(10)
        rest = [pool.submit(ask, client, input=text) for text in ("bb", "ccc", "dddd")]
        while service._together.waiting < 3:
            pass
        model.gate.set()
        sizes = [answer.result()["data"][0]["embedding"][0] for answer in (first, *rest)]
    assert sizes == [1.0, 2.0, 3.0, 4.0]
    assert [sorted(batch) for batch in model.batches] == [["a"], ["bb", "ccc", "dddd"]]


def test_questions_are_not_computed_with_what_may_answer_them(service: Ready, client: TestClient) -> None:
    model = service._model
    model.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, client, input="a")
        assert model.entered.wait(10)
        rest = [pool.submit(ask, client, input=role, input_type=role) for role in ("query", "document", "query")]
        while service._together.waiting < 3:
            pass
        model.gate.set()
        assert all("data" in answer.result() for answer in (first, *rest))
    batches = zip(model.roles, model.batches, strict=True)
    assert sorted(batches) == [("", ["a"]), ("document", ["document"]), ("query", ["query"] * 2)]


def test_one_batch_that_fails_does_not_end_the_service(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", content=b'{"input": "break"}')
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "engine_error")
    assert ask(client, input="a")["data"][0]["embedding"] == [1.0, 3.0, 4.0]


def test_what_is_asked_for_may_be_null(client: TestClient) -> None:
    body = {"input": "ab", "encoding_format": None, "dimensions": None, "input_type": None, "user": "x"}
    assert ask(client, **body)["data"][0]["embedding"] == [2.0, 3.0, 4.0]


def test_questions_and_what_may_answer_them_are_told_apart(service: Ready, client: TestClient) -> None:
    for input_type in ("query", "search_query", "document", "search_document", "passage"):
        ask(client, input="a", input_type=input_type)
    ask(client, input="a")
    assert service._model.roles == ["query", "query", "document", "document", "document", ""]


def test_vectors_have_length_one_unless_the_model_is_made_for_products(service: Ready, client: TestClient) -> None:
    ask(client, input="a")
    service._model.similarity_fn_name = "dot"
    ask(client, input="a")
    assert service._model.are_unit == [True, False]


def test_it_shortens_what_is_too_long_when_it_is_told_to(service: Ready, client: TestClient) -> None:
    service._truncates = True
    answer = ask(client, input=["a b c d e f", "a"])
    assert len(answer["data"]) == 2
    assert answer["usage"]["prompt_tokens"] == 5 + 2


def test_out_of_memory_is_told_and_the_service_lives_on(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", content=b'{"input": "large"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "out_of_memory")
    assert ask(client, input="a")["data"][0]["embedding"] == [1.0, 3.0, 4.0]


def test_a_caller_who_leaves_stops_a_long_computation_between_two_pieces(service: Ready) -> None:
    service.load()
    caller = Caller()
    texts = ["a"] * (GATHERED_LIMIT + 1)
    assert len(service._encode(texts, None, Turn([caller]))) == len(texts)
    assert [len(batch) for batch in service._model.batches] == [GATHERED_LIMIT, 1]
    caller.leave()
    with pytest.raises(Left):
        service._encode(texts, None, Turn([caller]))
    assert len(service._model.batches) == 2


def test_documents_are_ranked_by_how_alike_they_are_to_the_query(service: Ready, client: TestClient) -> None:
    body = {"query": "abc", "documents": ["abcdef", "abc", {"text": "abcd"}]}
    answer = client.post("/v1/rerank", content=json.dumps(body)).json()
    assert [(found["index"], found["relevance_score"]) for found in answer["results"]] == [
        (1, 1.0),
        (2, 0.5),
        (0, 0.25),
    ]
    assert service._model.roles == ["query", "document"]
    assert answer["usage"] == {"prompt_tokens": 8, "total_tokens": 8}


def test_vectors_of_zeros_stay_zeros() -> None:
    assert shorten([0.0, 0.0, 1.0], 2) == [0.0, 0.0]
    assert pack([1.0]) == base64.b64encode(b"\x00\x00\x80\x3f").decode()

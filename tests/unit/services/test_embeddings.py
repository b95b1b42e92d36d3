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

from modelgrid.services.embeddings import Asked, Embeddings, pack, read_request, shorten
from modelgrid.services.service import Options, ServiceError
from modelgrid.services.weights import find_weights


class Tokenizer:
    """Words are tokens; one is added, as models do."""

    def __len__(self) -> int:
        return 100

    def __call__(self, texts: list[str], truncation: bool, max_length: int | None) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0, *range(len(text.split()))][: max_length if truncation else None] for text in texts]}

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return " ".join(f"w{token}" for token in tokens)


class Vectors(list[list[float]]):
    """What the library answers: an array."""

    def tolist(self) -> list[list[float]]:
        return list(self)


class Model:
    """Stands for a model of the library: vectors tell the length of their text."""

    tokenizer = Tokenizer()
    max_seq_length = 5

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def get_embedding_dimension(self) -> int:
        return 3

    def encode(self, texts: list[str], batch_size: int, show_progress_bar: bool) -> Vectors:
        self.entered.set()
        assert self.gate.wait(20)
        if "break" in texts:
            raise RuntimeError("a matrix is broken")
        self.batches.append(texts)
        return Vectors([[float(len(text)), 3.0, 4.0] for text in texts])


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
    vector = ask(client, input="abcd", dimensions=2)["data"][0]["embedding"]
    assert vector == pytest.approx([0.8, 0.6])
    assert math.hypot(*vector) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "'input' must be a string"),
        ({"input": []}, "input", "'input' is empty"),
        ({"input": ""}, "input", "'input' holds an empty string"),
        ({"input": ["a", 1]}, "input", "'input' must be a string"),
        ({"input": [100]}, "input", "input holds tokens outside of this model's vocabulary of 100"),
        ({"input": ["a"] * 2049}, "input", "'input' has 2049 items, at most 2048 are taken"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "must be float or base64, not 'hex'"),
        ({"input": "a", "dimensions": 4}, "dimensions", "'dimensions' must be a number from 1 to 3"),
        ({"input": "a", "dimensions": True}, "dimensions", "'dimensions' must be a number from 1 to 3"),
        ({"input": ["a", "a b c d e"]}, "input", "cannot embed input 1: it has 6 tokens, mini takes 5"),
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
        while len(service._waiting) < 3:
            pass
        model.gate.set()
        sizes = [answer.result()["data"][0]["embedding"][0] for answer in (first, *rest)]
    assert sizes == [1.0, 2.0, 3.0, 4.0]
    assert [sorted(batch) for batch in model.batches] == [["a"], ["bb", "ccc", "dddd"]]


def test_one_batch_that_fails_does_not_end_the_service(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", content=b'{"input": "break"}')
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "engine_error")
    assert ask(client, input="a")["data"][0]["embedding"] == [1.0, 3.0, 4.0]


def test_a_request_is_read_once_and_checked() -> None:
    body = {"input": "a", "encoding_format": None, "dimensions": 2, "user": "x"}
    assert read_request(body, str, 3) == Asked(("a",), 2, False)
    with pytest.raises(ServiceError):
        read_request({"input": None}, str, 3)


def test_vectors_of_zeros_stay_zeros() -> None:
    assert shorten([0.0, 0.0, 1.0], 2) == [0.0, 0.0]
    assert pack([1.0]) == base64.b64encode(b"\x00\x00\x80\x3f").decode()


def test_weights_are_a_path_or_lie_in_a_package() -> None:
    assert find_weights("/models/x") == "/models/x"
    with pytest.raises(FileNotFoundError, match="cannot find weights in the package pytest"):
        find_weights("package:pytest")

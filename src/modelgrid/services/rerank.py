"""Reranking by cross-encoders of sentence-transformers, behind POST /v1/rerank and POST /v1/score.

``python -m modelgrid.services.rerank --model PATH``. A cross-encoder reads the query and a document together, which
tells more than the likeness of their embeddings, and takes longer.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Final

from starlette.requests import Request

from modelgrid.services.ranking import Judged, Pair, Ranker
from modelgrid.services.service import Options, ServiceError, Turn
from modelgrid.services.tokens import Tokens, longest

GATHERED_LIMIT: Final = 256  # pairs of several requests that are computed together; and between two steps
BATCH: Final = 32


class Rerank(Ranker):
    """The service. Requests that come while the model computes are computed together next."""

    name: ClassVar[str] = "rerank"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "rerank"

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._model: Any = None
        self._tokens: Tokens
        self._bounded: Any = None
        self._together = self.batcher(self._judge_all, limit=GATHERED_LIMIT, size=len)

    def load(self) -> None:
        """Load the weights, and compute once, so that the first request doesn't pay for it."""
        library: Any = importlib.import_module("sentence_transformers")
        torch: Any = importlib.import_module("torch")
        where = self.weights()
        self.log.info("loading %s", where)
        trusts = self.options.trust_remote_code
        model = library.CrossEncoder(where, device=self.options.device, trust_remote_code=trusts)
        self.take(model, torch.nn.Sigmoid())
        self._predict([("warm", "warm")])

    def take(self, model: Any, bounded: Any) -> None:
        """Serve `model`, a CrossEncoder. `bounded` makes a score from 0 to 1 of what it says: some models come without
        anything that does."""
        self._check_kind(model)
        self._model = model
        self._bounded = bounded
        self._tokens = Tokens(model.tokenizer)

    def _check_kind(self, model: Any) -> None:
        """The library loads any model: it judges at random by one whose weights end before the judging."""
        if not any("For" in architecture for architecture in model.config.architectures or ("For?",)):
            said = f"cannot rerank by {self.options.model}: it is an embedding model"
            raise ValueError(f"{said} (use engine: embeddings, which reranks by how alike its embeddings are)")
        if model.num_labels != 1:
            said = f"cannot rerank by {self.options.model}: it sorts texts into {model.num_labels} classes"
            raise ValueError(f"{said}, a reranker gives one score (try cross-encoder/ms-marco-MiniLM-L6-v2)")

    async def judge(self, request: Request, pairs: tuple[Pair, ...]) -> Judged:
        """By what the model says of each pair. Documents that are too long are shortened, a query must fit."""
        limit = self._model.max_seq_length
        most = longest(limit)
        pairs = tuple((query[:most], document[:most]) for query, document in pairs)
        queries, documents = [query for query, _ in pairs], [document for _, document in pairs]
        if limit:
            alone = await self._tokens.count(list(dict.fromkeys(queries)))
            if max(alone) >= limit:
                said = f"cannot rerank by a query of {max(alone)} tokens: {self.options.name} takes {limit}"
                step = "with a document (send a shorter one)"
                raise ServiceError(400, f"{said} {step}", param="query", code="context_length_exceeded")
        counts = await self._tokens.count(queries, documents)
        tokens = sum(min(count, limit or count) for count in counts)
        return Judged(await self.run_in(self._together, request, pairs), tokens)

    def close(self) -> None:
        self._tokens.close()

    def _judge_all(self, turn: Turn, batch: list[tuple[Pair, ...]]) -> list[list[float]]:
        rest = iter(self._predict([pair for pairs in batch for pair in pairs], turn))
        return [[next(rest) for _ in pairs] for pairs in batch]

    def _predict(self, pairs: list[Pair], turn: Turn | None = None) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(pairs), GATHERED_LIMIT):
            if turn is not None:
                turn.step(start, len(pairs))
            piece = pairs[start : start + GATHERED_LIMIT]
            made = self._model.predict(piece, batch_size=BATCH, show_progress_bar=False, activation_fn=self._bounded)
            scores += made.tolist()
        return scores


if __name__ == "__main__":
    Rerank.main()

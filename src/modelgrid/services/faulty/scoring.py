"""What engines answer with numbers: vectors, scores, classes, flags, tokens."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from modelgrid.services.faulty.answer import Answer, Json, of_json
from modelgrid.services.faulty.call import Call, now

CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence")


def embeddings(call: Call) -> Answer:
    """Vectors of 8 numbers that depend on the input only."""
    inputs = _inputs(call.sent)
    data = []
    for index, item in enumerate(inputs):
        vector = _vector(item)
        packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
        shown = packed if call.sent.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    return of_json({"object": "list", "model": call.model, "data": data, "usage": _usage(len(inputs))})


def rerank(call: Call) -> Answer:
    documents = call.sent.get("documents") or []
    scored = [(_score(call.sent.get("query"), document), n) for n, document in enumerate(documents)]
    results = []
    for score, n in sorted(scored, reverse=True)[: call.sent.get("top_n") or len(scored)]:
        shown = documents[n] if isinstance(documents[n], dict) else {"text": documents[n]}
        results.append({"index": n, "document": shown, "relevance_score": score})
    usage = {"prompt_tokens": len(documents), "total_tokens": len(documents)}
    return of_json({"id": f"rerank-{call.mark}", "model": call.model, "usage": usage, "results": results})


def score(call: Call) -> Answer:
    queries = _listed(call.sent.get("queries", call.sent.get("text_1", "")))
    documents = _listed(call.sent.get("documents", call.sent.get("text_2", "")))
    pairs = zip(queries * len(documents) if len(queries) == 1 else queries, documents, strict=False)
    return _listing(call, "score", [{"object": "score", "score": _score(*pair)} for pair in pairs])


def classify(call: Call) -> Answer:
    classes = []
    for item in _inputs(call.sent):
        first = _vector(item)[0]
        probs = [first, 1 - first]
        label = f"LABEL_{probs.index(max(probs))}"
        classes.append({"label": label, "probs": probs, "num_classes": 2})
    return _listing(call, "classify", classes)


def pooling(call: Call) -> Answer:
    return _listing(call, "pool", [{"object": "pooling", "data": _vector(item)} for item in _inputs(call.sent)])


def moderations(call: Call) -> Answer:
    results = []
    for item in _inputs(call.sent):
        scores = dict(zip(CATEGORIES, _vector(item), strict=False))
        categories = {name: value > 0.9 for name, value in scores.items()}
        flagged = any(categories.values())
        kinds = {name: ["text"] for name in scores}
        shown = {"flagged": flagged, "categories": categories, "category_scores": scores}
        results.append({**shown, "category_applied_input_types": kinds})
    return of_json({"id": f"modr-{call.mark}", "model": call.model, "results": results})


def tokenize(call: Call) -> Answer:
    """A token for each character, so that the way back is exact. vLLM's and llama.cpp's words for it."""
    given = call.sent.get("prompt", call.sent.get("content", call.sent.get("messages", "")))
    text = given if isinstance(given, str) else json.dumps(given)
    tokens = [ord(character) for character in text]
    return of_json({"count": len(tokens), "max_model_len": 4096, "tokens": tokens, "token_strs": None})


def detokenize(call: Call) -> Answer:
    text = "".join(map(chr, call.sent.get("tokens") or []))
    return of_json({"prompt": text, "content": text})


def _inputs(sent: Json) -> list[Any]:
    given = sent.get("input", sent.get("messages", ""))
    return given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _vector(item: Any) -> list[float]:
    text = json.dumps(item).encode()
    return [((sum(text) * (n + 1)) % 97) / 97 for n in range(8)]


def _score(query: Any, document: Any) -> float:
    """The share of the query's words that the document has."""
    words = set(str(query).lower().split())
    return len(words & set(str(document).lower().split())) / max(1, len(words))


def _usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": count, "total_tokens": count}


def _listing(call: Call, kind: str, data: list[Json]) -> Answer:
    numbered = [{"index": n, **item} for n, item in enumerate(data)]
    facts = {"id": f"{kind}-{call.mark}", "object": "list", "created": now(), "model": call.model}
    return of_json({**facts, "data": numbered, "usage": {**_usage(len(data)), "completion_tokens": 0}})

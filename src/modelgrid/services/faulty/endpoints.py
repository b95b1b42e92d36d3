"""The table of endpoints: every path by which an engine of the field serves one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from modelgrid.services.faulty import chat, media, messages, responses, scoring, videos
from modelgrid.services.faulty.answer import Answer
from modelgrid.services.faulty.call import Call

REALTIME = "/v1/realtime"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. ``{id}`` stands for one segment of the path."""

    method: str
    path: str
    answer: Callable[[Call], Answer]
    names_model: bool = True  # the request has to say which model it is for


# fmt: off
ENDPOINTS = (
    Endpoint("POST",   "/v1/chat/completions",          chat.chat),
    Endpoint("POST",   "/v1/completions",               chat.completions),
    Endpoint("POST",   "/infill",                       chat.infill),
    Endpoint("POST",   "/v1/responses",                 responses.create),
    Endpoint("GET",    "/v1/responses/{id}",            responses.get, names_model=False),
    Endpoint("DELETE", "/v1/responses/{id}",            responses.delete, names_model=False),
    Endpoint("POST",   "/v1/responses/{id}/cancel",     responses.cancel, names_model=False),
    Endpoint("GET",    "/v1/responses/{id}/input_items", responses.items, names_model=False),
    Endpoint("POST",   "/v1/messages",                  messages.create),
    Endpoint("POST",   "/v1/messages/count_tokens",     messages.count),
    Endpoint("POST",   "/v1/embeddings",                scoring.embeddings),
    Endpoint("POST",   "/rerank",                       scoring.rerank),
    Endpoint("POST",   "/v1/rerank",                    scoring.rerank),
    Endpoint("POST",   "/v2/rerank",                    scoring.rerank),
    Endpoint("POST",   "/score",                        scoring.score),
    Endpoint("POST",   "/v1/score",                     scoring.score),
    Endpoint("POST",   "/classify",                     scoring.classify),
    Endpoint("POST",   "/pooling",                      scoring.pooling),
    Endpoint("POST",   "/v1/moderations",               scoring.moderations),
    Endpoint("POST",   "/tokenize",                     scoring.tokenize),
    Endpoint("POST",   "/detokenize",                   scoring.detokenize),
    Endpoint("POST",   "/v1/images/generations",        media.generations),
    Endpoint("POST",   "/v1/images/edits",              media.edits),
    Endpoint("POST",   "/v1/images/variations",         media.variations),
    Endpoint("POST",   "/v1/audio/speech",              media.speech),
    Endpoint("POST",   "/v1/audio/transcriptions",      media.transcriptions),
    Endpoint("POST",   "/v1/audio/translations",        media.translations),
    Endpoint("POST",   "/v1/videos",                    videos.create),
    Endpoint("GET",    "/v1/videos",                    videos.listed, names_model=False),
    Endpoint("GET",    "/v1/videos/{id}",               videos.get, names_model=False),
    Endpoint("DELETE", "/v1/videos/{id}",               videos.delete, names_model=False),
    Endpoint("GET",    "/v1/videos/{id}/content",       videos.content, names_model=False),
    Endpoint("POST",   "/v1/videos/{id}/remix",         videos.remix, names_model=False),
)
# fmt: on

_PATTERNS = tuple((row, re.compile(row.path.replace("{id}", "([^/]+)"))) for row in ENDPOINTS if "{" in row.path)
_EXACT = {(row.method, row.path): row for row in ENDPOINTS if "{" not in row.path}


def find_endpoint(method: str, path: str) -> tuple[Endpoint, str] | None:
    """The row of a path, and the id where it names one."""
    method = "GET" if method == "HEAD" else method
    if row := _EXACT.get((method, path)):
        return row, ""
    for row, pattern in _PATTERNS:
        if row.method == method and (found := pattern.fullmatch(path)):
            return row, found[1]
    return None

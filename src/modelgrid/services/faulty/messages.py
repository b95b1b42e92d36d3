"""Anthropic's messages, and the count of their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelgrid.services.faulty.answer import Answer, Json, event, of_events, of_json
from modelgrid.services.faulty.call import Call, Tool, chosen_tool, fitting

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def create(call: Call) -> Answer:
    if "max_tokens" not in call.sent:
        return of_json(error("max_tokens: Field required", 400), 400)
    tool = None
    if not _is_told_a_result(call.sent.get("messages")):
        tool = chosen_tool(call.sent.get("tools"), call.sent.get("tool_choice"))
    if not call.streams:
        return of_json(_message(call, tool))
    failed = event(error("told to fail within a stream", 529), "error")
    return of_events((event(value, value["type"]) for value in _events(call, tool)), failed)


def count(call: Call) -> Answer:
    text = json.dumps([call.sent.get("system"), call.sent.get("messages"), call.sent.get("tools")])
    return of_json({"input_tokens": len(text.split())})


def error(message: str, status: int) -> Json:
    """An error in the shape that Anthropic's clients read."""
    said = {"type": KINDS.get(status, "api_error"), "message": message}
    return {"type": "error", "error": said, "request_id": None}


def _is_told_a_result(messages: Any) -> bool:
    content = (messages or [{}])[-1].get("content")
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


def _said(call: Call) -> list[str]:
    wanted = (call.sent.get("output_config") or {}).get("format") or call.sent.get("output_format") or {}
    if wanted.get("type") == "json_schema":
        return call.pieces(json.dumps(fitting(wanted.get("schema", {}))))
    return call.words()


def _usage(output: int) -> Json:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": 3, **cached, "output_tokens": output, "service_tier": "standard"}


def _message(call: Call, tool: Tool | None) -> Json:
    block: Json = {"type": "text", "text": "".join(_said(call))}
    if tool:
        block = {"type": "tool_use", "id": f"toolu_{call.mark}", "name": tool.name, "input": tool.arguments}
    return {
        "id": f"msg_{call.mark}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": _usage(call.ways.chunks),
    }


def _events(call: Call, tool: Tool | None) -> Iterator[Json]:
    whole = _message(call, tool)
    yield {
        "type": "message_start",
        "message": {**whole, "content": [], "stop_reason": None, "usage": _usage(1)},
    }
    (block,) = whole["content"]
    empty: Json = {"input": {}} if tool else {"text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": {**block, **empty}}
    yield {"type": "ping"}
    for delta in _tool_deltas(call, tool) if tool else _text_deltas(call):
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": call.ways.chunks}}
    yield {"type": "message_stop"}


def _text_deltas(call: Call) -> Iterator[Json]:
    for word in _said(call):
        yield {"type": "text_delta", "text": word}


def _tool_deltas(call: Call, tool: Tool) -> Iterator[Json]:
    for piece in ["", *call.pieces(tool.text)]:
        yield {"type": "input_json_delta", "partial_json": piece}

"""OpenAI's responses: made, streamed, kept, asked for again, cancelled, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from modelgrid.services.faulty.answer import Answer, Json, error, event, of_events, of_json
from modelgrid.services.faulty.call import Call, Tool, chosen_tool, fitting, now


def create(call: Call) -> Answer:
    tool = None if _is_told_a_result(call.sent.get("input")) else _tool(call)
    response = _response(call, tool)
    if call.sent.get("background"):
        kept = {**response, "status": "queued", "output": [], "usage": None}
        _keep(call, kept)
        return of_json(kept)
    if call.sent.get("store", True):
        _keep(call, response)
    return _streamed(call, response) if call.streams else of_json(response)


def get(call: Call) -> Answer:
    response = call.kept.responses.get(call.id)
    if response is None:
        return _missing(call)
    if response["status"] == "queued":  # in the background it is done by the time that somebody asks
        response = call.kept.responses[call.id] = {**response, "status": "completed", "output": [_message(call)]}
    if call.query.get("stream") == "true":
        return _streamed(call, response, int(call.query.get("starting_after", -1)))
    return of_json(response)


def items(call: Call) -> Answer:
    if call.id not in call.kept.responses:
        return _missing(call)
    data = call.kept.inputs[call.id]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return of_json({"object": "list", "data": data, **ends, "has_more": False})


def delete(call: Call) -> Answer:
    if call.kept.responses.pop(call.id, None) is None:
        return _missing(call)
    return of_json({"id": call.id, "object": "response", "deleted": True})


def cancel(call: Call) -> Answer:
    response = call.kept.responses.get(call.id)
    if response is None:
        return _missing(call)
    if not response["background"]:
        return of_json(error("only a response in the background can be cancelled"), 400)
    call.kept.responses[call.id] = cancelled = {**response, "status": "cancelled"}
    return of_json(cancelled)


def _missing(call: Call) -> Answer:
    return of_json(error(f"Response with id '{call.id}' not found."), 404)


def _keep(call: Call, response: Json) -> None:
    given = call.sent.get("input") or []
    given = [{"role": "user", "content": given}] if isinstance(given, str) else given
    call.kept.responses[response["id"]] = response
    call.kept.inputs[response["id"]] = [{"id": f"item_{call.mark}_{n}", **item} for n, item in enumerate(given)]


def _tool(call: Call) -> Tool | None:
    return chosen_tool(call.sent.get("tools"), call.sent.get("tool_choice"))


def _is_told_a_result(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and given[-1].get("type") == "function_call_output"


def _response(call: Call, tool: Tool | None) -> Json:
    told = {name: call.sent.get(name) for name in ("instructions", "metadata", "previous_response_id", "temperature")}
    tokens = {"input_tokens": 3, "output_tokens": call.ways.chunks, "total_tokens": 3 + call.ways.chunks}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_{call.mark}",
        "object": "response",
        "created_at": now(),
        "status": "completed",
        "background": bool(call.sent.get("background")),
        "error": None,
        "incomplete_details": None,
        **told,
        "model": call.model,
        "output": [_function_call(call, tool) if tool else _message(call)],
        "parallel_tool_calls": True,
        "store": call.sent.get("store", True),
        "text": call.sent.get("text") or {"format": {"type": "text"}},
        "tool_choice": call.sent.get("tool_choice", "auto"),
        "tools": call.sent.get("tools") or [],
        "truncation": "disabled",
        "usage": {**tokens, **details},
    }


def _message(call: Call) -> Json:
    content = [{"type": "output_text", "text": "".join(_said(call)), "annotations": [], "logprobs": []}]
    return {
        "type": "message",
        "id": f"msg_{call.mark}",
        "status": "completed",
        "role": "assistant",
        "content": content,
    }


def _function_call(call: Call, tool: Tool) -> Json:
    ids = {"id": f"fc_{call.mark}", "call_id": f"call_{call.mark}"}
    return {"type": "function_call", **ids, "name": tool.name, "arguments": tool.text, "status": "completed"}


def _said(call: Call) -> list[str]:
    wanted = (call.sent.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        return call.pieces(json.dumps(fitting(wanted.get("schema", {}))))
    return call.words()


def _streamed(call: Call, response: Json, after: int = -1) -> Answer:
    numbered = [{**value, "sequence_number": n} for n, value in enumerate(_events(call, response))]
    failed = {"type": "error", "code": "server_error", "message": "told to fail within a stream", "param": None}
    error_event = event({**failed, "sequence_number": len(numbered)}, "error")
    return of_events((event(value, value["type"]) for value in numbered[after + 1 :]), error_event)


def _events(call: Call, response: Json) -> Iterator[Json]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response["output"]):
        is_message = item["type"] == "message"
        empty: Json = {"content": []} if is_message else {"arguments": ""}
        yield _item_event("added", index, {**item, "status": "in_progress", **empty})
        yield from _text_events(call, index, item) if is_message else _argument_events(call, index, item)
        yield _item_event("done", index, item)
    yield {"type": "response.completed", "response": response}


def _item_event(what: str, index: int, item: Json) -> Json:
    return {"type": f"response.output_item.{what}", "output_index": index, "item": item}


def _text_events(call: Call, index: int, item: Json) -> Iterator[Json]:
    (part,) = item["content"]
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for piece in call.pieces(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


def _argument_events(call: Call, index: int, item: Json) -> Iterator[Json]:
    at = {"item_id": item["id"], "output_index": index}
    kind = "response.function_call_arguments"
    for piece in call.pieces(item["arguments"]):
        yield {"type": f"{kind}.delta", **at, "delta": piece}
    yield {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]}

"""OpenAI's chat and completions, and llama.cpp's infill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from modelgrid.services.faulty.answer import Answer, Json, event, of_events, of_json
from modelgrid.services.faulty.call import Call, Tool, chosen_tool, fitting, now

DONE = b"data: [DONE]\n\n"


def chat(call: Call) -> Answer:
    return _of(call, "chat.completion")


def completions(call: Call) -> Answer:
    return _of(call, "text_completion")


def infill(call: Call) -> Answer:
    words = call.words()
    if not call.streams:
        return of_json(_infilled(call, "".join(words), is_last=True))
    events = [event(_infilled(call, word, is_last=False)) for word in words]
    return of_events([*events, event(_infilled(call, "", is_last=True))])


def _infilled(call: Call, content: str, *, is_last: bool) -> Json:
    said = {"index": 0, "content": content, "tokens": [], "stop": is_last, "id_slot": 0, "tokens_predicted": 1}
    if not is_last:
        return {**said, "tokens_evaluated": 3}
    end = {"model": call.model, "tokens_predicted": call.ways.chunks, "tokens_evaluated": 3, "stop_type": "eos"}
    return {**said, **end, "stopping_word": "", "truncated": False, "generation_settings": {}, "timings": {}}


def _of(call: Call, kind: str) -> Answer:
    tool = None
    last = (call.sent.get("messages") or [{}])[-1]
    if last.get("role") != "tool":
        tool = chosen_tool(call.sent.get("tools"), call.sent.get("tool_choice"))
    if not call.streams:
        return of_json(_whole(call, kind, tool))
    usage = bool((call.sent.get("stream_options") or {}).get("include_usage"))
    return of_events([*(event(part) for part in _events(call, kind, tool, usage)), DONE])


def _said(call: Call) -> list[str]:
    wanted = call.sent.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return call.pieces(json.dumps(fitting(wanted.get("json_schema", {}).get("schema", {}))))
    if wanted.get("type") == "json_object":
        return call.pieces(json.dumps({"pid": os.getpid(), "model": call.model}))
    return call.words()


def _facts(call: Call, kind: str) -> Json:
    return {
        "id": f"faulty-{call.mark}",
        "object": kind,
        "created": now(),
        "model": call.model,
        "system_fingerprint": f"pid-{os.getpid()}",
    }


def _usage(call: Call) -> dict[str, int]:
    return {"prompt_tokens": 3, "completion_tokens": call.ways.chunks, "total_tokens": 3 + call.ways.chunks}


def _whole(call: Call, kind: str, tool: Tool | None) -> Json:
    text = "".join(_said(call))
    said: Json = {"message": {"role": "assistant", "content": text}}
    if kind == "text_completion":
        said = {"text": text, "logprobs": None}
    elif tool:
        function = {"name": tool.name, "arguments": tool.text}
        calls = [{"id": f"call_{call.mark}", "type": "function", "function": function}]
        said = {"message": {"role": "assistant", "content": None, "tool_calls": calls}}
    choice = {"index": 0, **said, "finish_reason": "tool_calls" if tool else "stop"}
    return {**_facts(call, kind), "choices": [choice], "usage": _usage(call)}


def _events(call: Call, kind: str, tool: Tool | None, usage: bool) -> Iterator[Json]:
    is_chat = kind == "chat.completion"
    facts = _facts(call, "chat.completion.chunk" if is_chat else kind)
    deltas = _tool_deltas(call, tool) if is_chat and tool else _deltas(_said(call))
    for delta in deltas:
        said: Json = {"delta": delta} if is_chat else {"text": delta["content"], "logprobs": None}
        yield {**facts, "choices": [{"index": 0, **said, "finish_reason": None}]}
    end: Json = {"delta": {}} if is_chat else {"text": ""}
    yield {**facts, "choices": [{"index": 0, **end, "finish_reason": "tool_calls" if tool and is_chat else "stop"}]}
    if usage:
        yield {**facts, "choices": [], "usage": _usage(call)}


def _deltas(words: list[str]) -> Iterator[Json]:
    for n, word in enumerate(words):
        yield {"role": "assistant", "content": word} if n == 0 else {"content": word}


def _tool_deltas(call: Call, tool: Tool) -> Iterator[Json]:
    function = {"name": tool.name, "arguments": ""}
    first = {"index": 0, "id": f"call_{call.mark}", "type": "function", "function": function}
    yield {"role": "assistant", "content": None, "tool_calls": [first]}
    for piece in call.pieces(tool.text):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

"""What callers send, and what the upstream answers."""

from __future__ import annotations

import json

MODEL = "bench-model"
KEY = "sk-bench-5f0c1e7a9b3d4e62"  # of this benchmark alone; LiteLLM refuses well-known ones
PATH = "/v1/chat/completions"
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
SIZES = {"300 B": 300, "8 KB": 8 << 10, "1 MB": 1 << 20}
CHUNK_INTERVAL_MS = 20

_SENTENCE = 'The gateway said "hello" to the engine,\nand the engine, « étant polie », answered. '
_TURN_BYTES = 2048


def chat(size: int, *, stream: bool = False) -> bytes:
    """A chat of exactly `size` bytes: small ones have one turn, large ones many."""
    head = {"model": MODEL, "stream": stream, "temperature": 0.7, "max_tokens": 128}
    system = {"role": "system", "content": "You are a helpful assistant."}
    messages = [system]
    while True:
        turn = {"role": ("user", "assistant")[len(messages) % 2 - 1], "content": ""}
        frame = len(_encoded({**head, "messages": [*messages, turn]}))
        room = size - frame
        if room < 2 * _TURN_BYTES:
            turn["content"] = _text(room)
            return _encoded({**head, "messages": [*messages, turn]})
        turn["content"] = _text(_TURN_BYTES)
        messages.append(turn)


def request(body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return head.encode() + b"\r\n" + body


def completion() -> bytes:
    """The upstream's fixed answer, of 300 bytes."""
    message = {"role": "assistant", "content": "Hello there! How can I help you this fine day?!"}
    return _encoded(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1700000000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 42, "completion_tokens": 4, "total_tokens": 46},
        }
    )


def chunk(*, usage: bool = False) -> bytes:
    """One server-sent event of a stream; or its last, with the usage."""
    body: dict[str, object] = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": {"content": " token"}, "finish_reason": None}],
    }
    if usage:
        body["choices"] = []
        body["usage"] = {"prompt_tokens": 42, "completion_tokens": 100, "total_tokens": 142}
    return b"data: " + _encoded(body) + b"\n\n"


def models() -> bytes:
    """The upstream's list of models."""
    return _encoded({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "bench"}]})


def server_info() -> bytes:
    """What routers ask an engine about itself."""
    return _encoded(
        {
            "model_id": MODEL,
            "model_path": MODEL,
            "served_model_name": MODEL,
            "tokenizer_path": MODEL,
            "is_generation": True,
            "dp_size": 1,
            "tp_size": 1,
            "version": "0.0.0",
        }
    )


def _encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _text(encoded_size: int) -> str:
    """Text that takes `encoded_size` bytes as JSON, as people write: quotes, ends of lines, letters beyond ASCII."""
    unit = len(_encoded(_SENTENCE)) - 2
    return _SENTENCE * (encoded_size // unit) + "x" * (encoded_size % unit)

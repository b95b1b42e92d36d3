"""Files of weights as tests need them: headers, and as many bytes as are wanted."""

from __future__ import annotations

import json
import struct
from typing import Any


def safetensors(tensors: dict[str, tuple[str, list[int]]], data: bytes = b"", padding: int = 0) -> bytes:
    header: dict[str, Any] = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def gguf(pairs: dict[str, Any], tensors: dict[str, list[int]]) -> bytes:
    made = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs))
    for name, value in pairs.items():
        made += gguf_text(name) + gguf_value(value)
    for name, shape in tensors.items():
        made += gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 12, 0)
    return made


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_text, value))
    if isinstance(value, list):
        return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)

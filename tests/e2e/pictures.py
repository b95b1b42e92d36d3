"""Pictures of one colour, written by hand: a PNG as the standard has it."""

from __future__ import annotations

import base64
import struct
import zlib

RED, GREEN, BLUE, YELLOW = (210, 30, 25), (25, 155, 30), (30, 25, 210), (225, 215, 30)
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE, "yellow": YELLOW}


def png(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> bytes:
    """The file."""
    rows = (b"\0" + bytes(colour) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (_part(b"IHDR", head), _part(b"IDAT", zlib.compress(rows)), _part(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def data_url(content: bytes, kind: str = "image/png") -> str:
    """As it goes into a message."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _part(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

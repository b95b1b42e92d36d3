"""A multipart body, read as it comes: values are kept, files are measured and hashed, never held."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

VALUE_LIMIT = 1 << 20
HEAD_LIMIT = 1 << 14


@dataclass
class Part:
    """A field, or a file of which only the measure is kept."""

    name: str
    filename: str | None
    content_type: str
    size: int = 0
    value: bytearray = field(default_factory=bytearray)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)
        if self.filename is None and len(self.value) < VALUE_LIMIT:
            self.value += data

    @property
    def sha256(self) -> str:
        text: str = self.digest.hexdigest()
        return text

    def shown(self) -> dict[str, Any]:
        shown = {"name": self.name, "size": self.size, "sha256": self.sha256}
        if self.filename is None:
            return {**shown, "value": self.value.decode("utf-8", "replace")}
        return {**shown, "filename": self.filename, "content_type": self.content_type}


class Form:
    """Takes a body in pieces of any size. `is_whole` once the closing boundary has come."""

    def __init__(self, boundary: str) -> None:
        self.parts: list[Part] = []
        self.is_whole = False
        self._mark = b"\r\n--" + boundary.encode("latin-1")
        self._rest = bytearray(b"\r\n")  # the first boundary may stand at the very start
        self._part: Part | None = None
        self._in_head = False

    def add(self, data: bytes) -> None:
        self._rest += data
        while not self.is_whole and (self._take_head() if self._in_head else self._take_content()):
            pass

    @property
    def files(self) -> list[Part]:
        return [part for part in self.parts if part.filename is not None]

    def values(self) -> dict[str, str]:
        return {part.name: part.value.decode("utf-8", "replace") for part in self.parts if part.filename is None}

    def shown(self) -> dict[str, Any]:
        return {"is_whole": self.is_whole, "parts": [part.shown() for part in self.parts]}

    def _take_content(self) -> bool:
        at = self._rest.find(self._mark)
        if at < 0:
            self._content(max(0, len(self._rest) - len(self._mark) + 1))
            return False
        after = at + len(self._mark)
        if len(self._rest) < after + 2:
            return False
        self._content(at)
        end = bytes(self._rest[len(self._mark) : len(self._mark) + 2])
        del self._rest[: len(self._mark)]
        self.is_whole = end == b"--"
        self._in_head = not self.is_whole
        return True

    def _content(self, until: int) -> None:
        if self._part is not None and until:
            self._part.add(bytes(self._rest[:until]))
        del self._rest[:until]

    def _take_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if len(self._rest) > HEAD_LIMIT:
                raise ValueError("a part of the form has a head without an end")
            return False
        self._part = _part(self._rest[:end].decode("utf-8", "replace"))
        self.parts.append(self._part)
        del self._rest[: end + 4]
        self._in_head = False
        return True


def form_of(content_type: str) -> Form | None:
    """A form for this Content-Type, where it is one."""
    if not content_type.lower().startswith("multipart/form-data"):
        return None
    found = re.search(r'boundary=(?:"([^"]+)"|([^;\s]+))', content_type, re.IGNORECASE)
    return Form(found[1] or found[2]) if found else None


def _part(head: str) -> Part:
    headers = dict(re.findall(r"(?m)^([^:\r\n]+):[ \t]*([^\r\n]*)", head))
    lower = {name.lower(): value for name, value in headers.items()}
    disposition = lower.get("content-disposition", "")
    name = re.search(r'[;\s]name="([^"]*)"', disposition)
    filename = re.search(r'filename="([^"]*)"', disposition)
    return Part(name[1] if name else "", filename[1] if filename else None, lower.get("content-type", ""))

"""The headers of weights' files: how many numbers of which kind, without reading any of them.

safetensors: eight bytes that say how long the JSON after them is. GGUF: counted pairs of a name and a typed value,
then the tensors' names and shapes.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

_LONGEST_HEADER: Final = 100 << 20  # the format's own limit
_LONGEST_ARRAY: Final = 10_000_000
_MOST_TENSORS: Final = 1_000_000
_LONGEST_STRING: Final = 64 << 20

Counts = Mapping[str, int]  # numbers, by dtype


def safetensors_counts(path: Path) -> Counts:
    """How many numbers there are, by dtype. Raises OSError, ValueError."""
    with path.open("rb") as file:
        return counts_of_header(lambda start, length: _at(file, start, length))


def counts_of_header(read: Callable[[int, int], bytes]) -> Counts:
    """The same of a file that `read` reads, from a start and so many bytes. Raises ValueError."""
    first = read(0, 8)
    if len(first) < 8:
        raise ValueError("it is too short for safetensors")
    (length,) = struct.unpack("<Q", first)
    if not 2 <= length <= _LONGEST_HEADER:
        raise ValueError("it is not safetensors: its header would be longer than the format allows")
    try:
        header = json.loads(read(8, length))
    except RecursionError:
        raise ValueError("it is not safetensors: its header is nested without end") from None
    if not isinstance(header, dict):
        raise ValueError("it is not safetensors: its header is not a mapping")
    counts: Counter[str] = Counter()
    try:
        for name, tensor in header.items():
            if name != "__metadata__":
                counts[tensor["dtype"]] += math.prod(tensor["shape"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not safetensors: {error}") from None
    return dict(counts)


def gguf_facts(path: Path) -> tuple[int, Mapping[str, Any]]:
    """How many parameters, and what the file says of the model (of arrays only their length, where they hold texts).
    Raises OSError, ValueError."""
    facts: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            return _read_gguf(file, facts), facts
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"it is not whole: {error}") from None


def gguf_facts_of_start(start: bytes) -> Mapping[str, Any]:
    """What is said in the first bytes of a file, which are as many as there are. The shape comes before the words, as
    llama.cpp's converter writes it. Raises ValueError."""
    facts: dict[str, Any] = {}
    try:
        _read_gguf(io.BytesIO(start), facts)
    except (struct.error, UnicodeDecodeError, OverflowError):
        pass
    return facts


def _at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def _read_gguf(file: BinaryIO, facts: dict[str, Any]) -> int:
    """How many parameters. What the file says goes into `facts` as it is read."""
    magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3) or tensors > _MOST_TENSORS or pairs > _MOST_TENSORS:
        raise ValueError("it is not GGUF of a version that we know (2, 3)")
    for _ in range(pairs):
        name = _text(file)
        kind = _number(file, "<I")
        if kind == _ARRAY:
            _read_array(file, name, facts)
        else:
            facts[name] = _text(file) if kind == _STRING else _number(file, _scalar(kind))
    return sum(_tensor_count(file) for _ in range(tensors))


def _tensor_count(file: BinaryIO) -> int:
    _text(file)
    dimensions = _number(file, "<I")
    if dimensions > 8:
        raise ValueError("a tensor has more dimensions than there can be")
    count: int = math.prod(struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions)))
    file.read(12)  # its type and its place
    return count


def _read_array(file: BinaryIO, name: str, facts: dict[str, Any]) -> None:
    inner, length = _number(file, "<I"), _number(file, "<Q")
    if length > _LONGEST_ARRAY:
        raise ValueError("it is not GGUF: an array is longer than any")
    if inner == _STRING:
        facts[name] = length  # also where the words themselves are cut off
        for _ in range(length):
            _skip_text(file)
        return
    shape = _scalar(inner)
    facts[name] = list(struct.unpack(f"<{length}{shape[1]}", file.read(struct.calcsize(shape) * length)))


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"it is not GGUF: a value is of kind {kind}")
    return _SCALARS[kind]


def _number(file: BinaryIO, shape: str) -> Any:
    (value,) = struct.unpack(shape, file.read(struct.calcsize(shape)))
    return value


def _text(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError("it is not GGUF: a text is longer than any")
    return file.read(length).decode()


def _skip_text(file: BinaryIO) -> None:
    length = _number(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError("it is not GGUF: a text is longer than any")
    file.seek(length, 1)

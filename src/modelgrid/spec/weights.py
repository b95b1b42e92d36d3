"""Weights as they are known before they are loaded, and the estimate that an engine makes of them. Bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Bytes a number, by the name that safetensors has for it.
_WIDTHS: Mapping[str, float] = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4},
    **{"F16": 2, "BF16": 2, "I16": 2, "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1},
    "F4": 0.5,
}
_FLOATS = ("F64", "F32", "F16", "BF16")  # what an engine may load at another width; the rest is quantised


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's config.json says of the memory that requests take. Numbers are counted, not bytes."""

    cached: int  # numbers that the KV cache keeps for each token
    cached_once: int = 0  # for each sequence beside them: layers that look back over a window only
    longest: int | None = None  # tokens of the longest sequence
    wide: int = 0  # numbers for each token in the widest layer, its inputs and outputs
    vocabulary: int = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights."""

    size_bytes: int  # as they lie in files
    parameters: Mapping[str, int] = field(default_factory=dict)  # how many, by dtype: {"BF16": 7615616512}
    shape: Shape | None = None

    @property
    def count(self) -> int:
        """How many parameters; 0: nobody has said."""
        return sum(self.parameters.values())

    @property
    def dtype(self) -> str | None:
        """What most of them are."""
        return max(self.parameters, key=lambda name: self.parameters[name], default=None)

    def loaded_bytes(self, width: float | None = None) -> int:
        """What they take once loaded: as they are, or with `width` bytes for each number that isn't quantised."""
        if not self.parameters or any(name not in _WIDTHS for name in self.parameters):
            return self.size_bytes
        widths = {name: width if width and name in _FLOATS else _WIDTHS[name] for name in self.parameters}
        return int(sum(widths[name] * count for name, count in self.parameters.items()))


@dataclass(frozen=True, slots=True)
class Part:
    """One of the things that memory is needed for."""

    what: str  # "weights"
    memory_bytes: int
    why: str = ""  # "7.6 billion parameters as BF16"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one replica will take at its peak of what it computes on, and why."""

    parts: tuple[Part, ...]
    main_bytes: int = 0  # of main memory beside GPUs
    spreads: bool = False  # over several GPUs, where one is too small
    fills: bool = False  # it takes all that was planned for it: what it holds says nothing of what it needs

    @property
    def memory_bytes(self) -> int:
        """All of it."""
        return sum(part.memory_bytes for part in self.parts)

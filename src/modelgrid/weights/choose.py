"""Which of a repository's files a model needs: one format of its weights, and all that is small."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

# The same weights often lie there in several formats: the first that is there is taken.
FORMATS = ((".safetensors",), (".bin", ".pt", ".pth"), (".gguf",))
WEIGHTS = frozenset(suffix for suffixes in FORMATS for suffix in suffixes)

_OTHER_RUNTIMES = frozenset({".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".tflite", ".mlmodel", ".npz"})
_OTHER_FOLDERS = frozenset({"onnx", "openvino", "coreml", "flax", "tf", "original", "metal"})


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository."""

    name: str  # path within the repository
    size_bytes: int
    sha256: str | None = None  # of its content, where the hub tells it


def choose_files(files: Iterable[File]) -> list[File]:
    """What to pull, in the order of the repository."""
    usable = [file for file in files if not _is_for_others(file)]
    present = {_suffix(file) for file in usable}
    taken = next((suffixes for suffixes in FORMATS if present & set(suffixes)), ())
    chosen = [file for file in usable if _suffix(file) not in WEIGHTS or _suffix(file) in taken]
    return [file for file in chosen if not _is_consolidated(file)] if _has_shards(chosen) else chosen


def weights_bytes(files: Iterable[File]) -> int:
    """What the weights among `files` take."""
    return sum(file.size_bytes for file in files if _suffix(file) in WEIGHTS)


def _suffix(file: File) -> str:
    return PurePosixPath(file.name).suffix


def _is_for_others(file: File) -> bool:
    folders = PurePosixPath(file.name).parts[:-1]
    return _suffix(file) in _OTHER_RUNTIMES or bool(_OTHER_FOLDERS & set(folders)) or file.name == ".gitattributes"


def _is_consolidated(file: File) -> bool:
    """The weights once more, in the format of who trained them."""
    return file.name.startswith("consolidated") and _suffix(file) in WEIGHTS


def _has_shards(files: list[File]) -> bool:
    return any(file.name.startswith("model") and _suffix(file) == ".safetensors" for file in files)

"""Which of a repository's files a model needs: its weights once, in one format, and all that is small.

The same weights often lie there several times: in other formats, in other precisions (``model.fp16.safetensors``), for
other runtimes, or once more as who trained them wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from modelgrid.spec.source import GGUF
from modelgrid.weights.ggufs import choose_gguf

SAFETENSORS: Final = ".safetensors"
PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt"})
WEIGHTS: Final = frozenset({SAFETENSORS, GGUF, *PICKLES})
PIPELINE: Final = "model_index.json"  # of diffusers: names the folders that make up the whole

_OTHER_RUNTIMES = frozenset(
    {".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".pb", ".tflite", ".mlmodel", ".npz", ".engine", ".llamafile"}
)
_OTHER_FOLDERS = frozenset({"onnx", "openvino", "coreml", "flax", "tf", "original", "metal", "mlx", "runs"})
_OTHER_NAMES = re.compile(r"openvino_.*|model\.onnx.*")
_BUNDLES = (".mlpackage", ".mlmodelc")  # folders of CoreML's
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".webm", ".mov", ".pdf"})  # of the model card
_OF_TRAINING = re.compile(r"(optimizer|scheduler|scaler|rng_state.*|training_args)(\.(bin|pt|pth))?")
_CHECKPOINT = re.compile(r"(checkpoint-|global_step)\d+")

# The weights as transformers and diffusers name them: NAME, NAME.VARIANT, either in shards; older: shards.VARIANT.
_STANDARD = re.compile(
    r"(?P<base>diffusion_pytorch_model|pytorch_model|adapter_model|model)(\.(?P<variant>[A-Za-z]\w*))?"
    r"(?P<shard>-\d{5}-of-\d{5})?(\.(?P<older>[A-Za-z]\w*))?"
)
_AGAIN = ("consolidated", "open_clip_")  # the same weights, as Mistral's and OpenCLIP's own libraries read them
_SMALL_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository."""

    name: str  # path within the repository
    size_bytes: int
    sha256: str | None = None  # of its content, where the hub tells it


def choose_files(
    files: Iterable[File], components: Collection[str] | None = None, pick: str | None = None
) -> list[File]:
    """What to pull, in the order of the repository.

    `components` are the folders that the repository's model_index.json names, where it has one and that could be read.
    `pick` is the GGUF file or the quantisation to have; without it a repository of GGUF files only has one chosen.
    """
    there = [file for file in files if not _is_beside(file)]
    usable = [file for file in there if not _is_for_others(file)]
    weights = [file for file in usable if _suffix(file) in WEIGHTS]
    if not weights and not pick:
        return there  # a model for another runtime, which somebody's own engine may have
    ggufs = [file for file in weights if _suffix(file) == GGUF]
    if pick or len(ggufs) == len(weights):
        chosen = choose_gguf(ggufs, pick)
    else:
        chosen = _choose_weights(weights, components, is_pipeline=any(file.name == PIPELINE for file in usable))
    taken = frozenset(file.name for file in chosen)
    return [
        file for file in usable if file.name in taken or (_suffix(file) not in WEIGHTS and _belongs(file, components))
    ]


def weights_of(files: Iterable[File]) -> list[File]:
    """The weights among `files`."""
    there = list(files)
    return [file for file in there if _suffix(file) in WEIGHTS] or [
        file for file in there if _suffix(file) in _OTHER_RUNTIMES
    ]


def weights_bytes(files: Iterable[File]) -> int:
    """What the weights among `files` take."""
    return sum(file.size_bytes for file in weights_of(files))


def _choose_weights(weights: list[File], components: Collection[str] | None, *, is_pipeline: bool) -> list[File]:
    """Folder by folder: one may have a format that the next one lacks."""
    folders: dict[str, list[File]] = {}
    for file in weights:
        folders.setdefault(_folder(file), []).append(file)
    chosen: list[File] = []
    for folder, found in folders.items():
        # A pipeline's root may have the whole once more, in one file: its folders are what is loaded.
        candidates = [file for file in found if _standard(file)] if is_pipeline and not folder else found
        chosen += _one_format([file for file in candidates if _belongs(file, components)])
    return chosen


def _one_format(found: list[File]) -> list[File]:
    tensors = [file for file in found if _suffix(file) == SAFETENSORS]
    pickles = [file for file in found if _suffix(file) in PICKLES]
    chosen = _once(tensors or pickles)
    if tensors:
        return [*chosen, *filter(_is_something_else, pickles)]
    if any(map(_standard, chosen)):
        return [file for file in chosen if _standard(file) or _is_something_else(file)]
    return chosen


def _is_something_else(pickle: File) -> bool:
    """Beside standard weights: a voice or some tokens. A large one is the same weights again."""
    return pickle.size_bytes < _SMALL_BYTES and not _standard(pickle) and not _stem(pickle).startswith(_AGAIN)


def _once(found: list[File]) -> list[File]:
    """Of one format: without other precisions, shards of what is there whole, and what other libraries read."""
    named = [(file, match) for file in found if (match := _standard(file))]
    if not named:
        return found
    variants = {_variant(match) for _, match in named}
    wanted = next(variant for variant in (None, "fp16", "bf16", *sorted(filter(None, variants))) if variant in variants)
    whole = {match["base"] for _, match in named if _variant(match) == wanted and not match["shard"]}
    dropped = {
        file.name for file, match in named if _variant(match) != wanted or (match["shard"] and match["base"] in whole)
    }
    return [file for file in found if file.name not in dropped and not _stem(file).startswith(_AGAIN)]


def _variant(match: re.Match[str]) -> str | None:
    return match["variant"] or match["older"]


def _standard(file: File) -> re.Match[str] | None:
    return _STANDARD.fullmatch(_stem(file)) if _suffix(file) in (SAFETENSORS, ".bin") else None


def _belongs(file: File, components: Collection[str] | None) -> bool:
    """Whether it lies in a folder that the pipeline names, or in none."""
    folder = _folder(file)
    return components is None or not folder or folder.partition("/")[0] in components


def _is_beside(file: File) -> bool:
    """What no engine reads: the model card's pictures, and what training has left."""
    path = PurePosixPath(file.name)
    if _OF_TRAINING.fullmatch(path.name) or any(_CHECKPOINT.fullmatch(folder) for folder in path.parts[:-1]):
        return True
    return path.suffix.lower() in _PICTURES or path.name.startswith(".git")


def _is_for_others(file: File) -> bool:
    path = PurePosixPath(file.name)
    folders = path.parts[:-1]
    if _OTHER_FOLDERS & set(folders) or any(folder.endswith(_BUNDLES) for folder in folders):
        return True
    return path.suffix.lower() in _OTHER_RUNTIMES or bool(_OTHER_NAMES.fullmatch(path.name))


def _folder(file: File) -> str:
    return file.name.rpartition("/")[0]


def _stem(file: File) -> str:
    return PurePosixPath(file.name).stem


def _suffix(file: File) -> str:
    return PurePosixPath(file.name).suffix

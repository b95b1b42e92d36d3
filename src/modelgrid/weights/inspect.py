"""What lies at a path: which format, whose, how large. For people, before they serve it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelgrid.spec import Unknown
from modelgrid.spec.source import GGUF
from modelgrid.spec.weights import Weights
from modelgrid.weights.choose import PICKLES, PIPELINE, SAFETENSORS, weights_of
from modelgrid.weights.explain import WeightsError
from modelgrid.weights.held import exists
from modelgrid.weights.weigh import files_in, weigh_held

_CTRANSLATE2 = frozenset({"vocabulary.json", "vocabulary.txt", "shared_vocabulary.json", "shared_vocabulary.txt"})


@dataclass(frozen=True, slots=True)
class Content:
    """Weights at a path."""

    path: Path
    format: str  # safetensors, GGUF, diffusers, CTranslate2, ONNX, PyTorch; ?: of another kind
    size_bytes: int  # of the weights in it
    weights: Weights


def inspect(path: Path) -> Content:
    """What an engine would find at `path`. Raises WeightsError where that is nothing."""
    if not exists(str(path)):
        raise WeightsError(f"cannot find {path}: there is nothing at this path (check the model's source)")
    if path.is_file() and path.suffix.lower() != GGUF:
        raise WeightsError(f"cannot load {path}: of single files only {GGUF} has all of a model (name its folder)")
    found = weigh_held(str(path), path)
    if found is None or isinstance(found, Unknown):
        raise WeightsError(
            f"cannot load {path}: it holds no weights (it takes {SAFETENSORS}, {GGUF} or .bin files, "
            "with the config.json that belongs to them)"
        )
    return Content(path, _format(path), found.size_bytes, found)


def _format(path: Path) -> str:
    if path.is_file():
        return "GGUF"
    files = files_in(path)
    names = {file.name for file in files}
    if PIPELINE in names:
        return "diffusers"
    if "model.bin" in names and names & _CTRANSLATE2:
        return "CTranslate2"
    suffixes = {Path(file.name).suffix for file in weights_of(files)}
    for suffix, word in ((GGUF, "GGUF"), (SAFETENSORS, "safetensors"), (".onnx", "ONNX")):
        if suffix in suffixes:
            return word
    return "PyTorch" if suffixes & PICKLES else "?"

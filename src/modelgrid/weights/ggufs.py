"""Which of a repository's GGUF files are one model: by llama.cpp's rules for ``-hf OWNER/NAME:QUANT``
(common/download.cpp), which is how everybody names them.

A repository has a file for each quantisation, large ones in shards, and beside them what sees (mmproj) and what speeds
up (mtp, eagle3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelgrid.spec.source import GGUF
from modelgrid.weights.explain import WeightsError

if TYPE_CHECKING:
    from modelgrid.weights.choose import File

DEFAULTS: Final = ("Q4_K_M", "Q8_0")  # the first of them that is there, else the first file

_SHARD = re.compile(r"(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_QUANT = re.compile(r"[-._/](?P<quant>(?:UD-)?(?:I?Q\d\w*|BF16|F16|F32|T?MXFP4\w*|TQ\d\w*))(?:\.gguf|-\d{5}-of-)", re.I)
_BESIDE = re.compile(r"(mmproj|imatrix|mtp-|eagle3-|dflash-|dspark-)", re.IGNORECASE)


def choose_gguf(files: Sequence[File], pick: str | None) -> list[File]:
    """The shards of what is picked, and what makes it see. Empty: there are no GGUF files and nothing is picked.
    Raises WeightsError where what is picked isn't there."""
    if pick is not None and pick.lower().endswith(GGUF):
        named = [file for file in files if file.name.lower() == pick.lower()]
        return _shards(files, _existing(named, files, pick)[0])
    models = [file for file in files if _is_model(file) and _is_first(file)]
    if pick is None:
        found = next(filter(None, (_matching(models, quant) for quant in DEFAULTS)), models)
    else:
        found = _existing(_matching(models, pick), models, pick)
    return [*_shards(files, found[0]), *_eyes(files, found[0])] if found else []


def first_shard(names: Sequence[str]) -> str | None:
    """Of the files of one model the one that is named to an engine, which finds the others beside it."""
    models = [name for name in names if name.lower().endswith(GGUF) and not _BESIDE.search(_last(name))]
    return min(models, default=None)


def shards_beside(name: str, names: Sequence[str]) -> list[str]:
    """All shards of the model that `name` is one of; itself, where it is whole."""
    split = _split(name)
    if split is None:
        return [name]
    return [other for other in names if _split(other) == split]


def _matching(models: Sequence[File], quant: str) -> list[File]:
    pattern = re.compile(rf"(?:^|[-._/]){re.escape(quant)}[.-]", re.IGNORECASE)
    return [file for file in models if pattern.search(file.name)]


def _existing(found: list[File], files: Sequence[File], pick: str) -> list[File]:
    if found:
        return found
    quants = dict.fromkeys(match["quant"] for file in files if (match := _QUANT.search(file.name)))
    names = list(quants) or [file.name for file in files if _is_model(file)]
    raise WeightsError(f"it has no {pick} (there is {', '.join(names[:20])})" if names else "it has no GGUF files")


def _shards(files: Sequence[File], first: File) -> list[File]:
    names = set(shards_beside(first.name, [file.name for file in files]))
    return [file for file in files if file.name in names]


def _eyes(files: Sequence[File], model: File) -> list[File]:
    """The projector for pictures in the model's folder or above, in the precision that is nearest."""
    folder = model.name.rpartition("/")[0]
    found = [
        file
        for file in files
        if "mmproj" in _last(file.name).lower() and (file.name.rpartition("/")[0] in ("", folder))
    ]
    return [min(found, key=lambda file: (abs(_bits(file.name) - _bits(model.name)), file.name))] if found else []


def _bits(name: str) -> int:
    match = _QUANT.search(name)
    digits = re.search(r"\d+", match["quant"]) if match else None
    return int(digits[0]) if digits else 0


def _is_model(file: File) -> bool:
    return not _BESIDE.search(_last(file.name))


def _is_first(file: File) -> bool:
    match = _SHARD.fullmatch(file.name)
    return match is None or int(match["index"]) == 1


@dataclass(frozen=True, slots=True)
class _Split:
    prefix: str
    count: str


def _split(name: str) -> _Split | None:
    match = _SHARD.fullmatch(name)
    return _Split(match["prefix"], match["count"]) if match else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]

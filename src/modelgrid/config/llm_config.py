"""``llm_config.json``: one model, and the pod or the serverless endpoint to rent for it.

The model becomes one of modelgrid's and runs on this machine. What is to be rented is checked and kept for the runtime
that rents; until there is one, a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from modelgrid.config.config import Rent
from modelgrid.config.document import At, Document, Place, Value
from modelgrid.config.explain import explained

_SECRETS: Final = ("RUNPOD_API_KEY", "DOCKER_TOKEN")
_CACHE: Final = "CACHE_DIR"
_INDENT: Final = re.compile(r"^[ \t]+", re.MULTILINE)
_MARKS: Final = ("mode", "model")  # fields of such a file that modelgrid.yaml doesn't have


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("is empty: write what the hub calls the model, for example facebook/opt-125m")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """What RunPod takes has more fields than are spoken of here: they may be anything."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Model(_Part):
    name: Annotated[str, AfterValidator(_not_empty)]
    path: str | None = None


class _Compute(_Open):
    gpu_type_id: str | None = None
    gpu_count: int | None = Field(default=None, ge=1)


class _Place(_Open):
    template_id: str | None = None
    container_disk_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    name: str | None = None


class _File(_Part):
    mode: Literal["pod", "serverless"] | None = None
    model: _Model
    compute: _Compute | None = None
    pod: _Place | None = None
    serverless: _Place | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What such a file says beside its model."""

    rent: Rent | None = None
    notes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()  # values of the environment's variables that renting asks for


def without_tabs(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses. A space for each keeps the columns as they are."""
    return _INDENT.sub(lambda found: " " * len(found[0]), text) if _is_json(text) else text


def is_llm_config(text: str, document: Document) -> bool:
    """Whether `document`, read of `text`, has that shape: by what is in it, as it may have any name."""
    return _is_json(text) and "models" not in document.values and any(mark in document.values for mark in _MARKS)


def read_llm_config(document: Document, environ: Mapping[str, str]) -> Read:
    """Make `document` one of modelgrid.yaml's shape. Its problems stay where they were written."""
    values = document.values
    try:
        _File.model_validate(values)
    except ValidationError as error:
        for at, message, of_key in explained(error, _File):
            document.add(at, message, of_key=of_key)
    rent = _rent(values)
    _turn(document, rent)
    secrets = tuple(value for name in _SECRETS if (value := environ.get(name)))
    return Read(rent, tuple(_notes(rent, environ)), secrets)


def _is_json(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith("{")


def _rent(values: Mapping[str, Value]) -> Rent | None:
    mode = values.get("mode")
    if mode == "pod":
        return Rent("pod", _texts(values.get("compute")), _texts(values.get("pod")))
    if mode == "serverless":
        return Rent("serverless", _texts(values.get("compute")), _texts(values.get("serverless")))
    return None


def _texts(section: Value) -> Mapping[str, Value]:
    return section if isinstance(section, dict) else {}


def _turn(document: Document, rent: Rent | None) -> None:
    """The values become ``models: {NAME: …}``, and what is found wrong with them is shown where they came from."""
    model = document.values.get("model")
    document.values = {}
    name, path = (model.get("name"), model.get("path")) if isinstance(model, dict) else (None, None)
    if not isinstance(name, str) or not name:
        return
    source, written = (_as_path(path), "path") if isinstance(path, str) and path else (name, "name")
    is_ollama = rent is not None and rent.place.get("template_id") == "ollama"
    if is_ollama:
        source, written = f"ollama:{name}", "name"  # its own store has the weights
    at: At = ("models", name)
    keeps = "0" if rent and rent.mode == "serverless" else "1"
    document.values["models"] = {
        name: {
            "engine": "ollama" if is_ollama else "vllm",
            "source": source,
            "scaling": {"min": keeps},
        }
    }
    for new, old in ((at, ("model", "name")), ((*at, "source"), ("model", written)), ((*at, "engine"), ("model",))):
        place = document.places[old]
        document.places[new] = document.keys[new] = Place(place.line, place.column, ".".join(old))


def _as_path(path: str) -> str:
    """A text that is taken for a path, whether anything lies there or not: ``a/b`` could be a model of a hub."""
    return path if path.startswith(("/", "~", "./", "../")) else f"./{path}"


def _notes(rent: Rent | None, environ: Mapping[str, str]) -> list[str]:
    notes = []
    if rent is not None:
        where = "a pod" if rent.mode == "pod" else "a serverless endpoint"
        gpus = rent.compute.get("gpu_type_id")
        what = f"{where} with {rent.compute.get('gpu_count') or 1} of {gpus}" if gpus else where
        notes.append(
            f"mode: {rent.mode} asks for {what}, and nothing is rented: the model runs on this machine. Renting comes "
            "with the RunPod runtime, which this version doesn't have yet; what the file says of it was checked"
        )
    if environ.get(_CACHE):
        notes.append(f"{_CACHE} is set, and not used: answers aren't kept in files")
    return notes

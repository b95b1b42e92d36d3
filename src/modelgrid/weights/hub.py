"""The model hub: what it has, and whether it answers. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from modelgrid.spec.source import HubModel
from modelgrid.weights.choose import PIPELINE, File, choose_files, weights_of
from modelgrid.weights.explain import Hub, WeightsError, endpoint, explained
from modelgrid.weights.ggufs import first_shard
from modelgrid.weights.held import MARKER

LONGEST_CONFIG: Final = 4 << 20  # of JSON that describes a model
PROBE: Final = "sentence-transformers/all-MiniLM-L6-v2"  # a model that every hub and mirror has


@dataclass(frozen=True, slots=True)
class Listing:
    """What is to be pulled of a hub's model, at one revision."""

    model: HubModel
    revision: str
    files: tuple[File, ...]
    parameters: Mapping[str, int] = field(default_factory=dict)  # by dtype, where the hub has counted them

    @property
    def entry(self) -> str | None:
        """The file that is named to an engine, where it isn't the folder of all: the first of a GGUF model."""
        return first_shard([file.name for file in self.files])

    def url(self, file: File) -> str:
        """Where a file is had."""
        return _url(self.model, self.revision, file.name)


def list_files(model: HubModel, timeout_s: float) -> Listing:
    """What would be pulled, and its sizes. Raises WeightsError."""
    if is_offline():
        raise WeightsError(f"cannot ask the hub for {model}: HF_HUB_OFFLINE is set (unset it, or use a local path)")
    from huggingface_hub import HfApi, constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # else it asks for more than was asked of it, and tells who runs it
    with explained(f"ask the hub for {model}", Hub(model.repository)):
        api = HfApi(endpoint=endpoint(), headers=_authorization(), token=False)
        info = api.model_info(model.repository, files_metadata=True, timeout=timeout_s)
        revision = info.sha or "main"
        there = [
            File(at.rfilename, at.size or 0, at.lfs.sha256 if at.lfs else None)
            for at in info.siblings or []
            if not at.rfilename.startswith(MARKER)  # of a folder that was pulled before it was uploaded
        ]
        components = _components(model, revision, there, timeout_s)
    try:
        files = choose_files(there, components, model.pick)
    except WeightsError as error:
        raise WeightsError(f"cannot pull {model}: {error}") from None
    if not weights_of(files):
        raise WeightsError(f"cannot pull {model}: the hub has no files of it that an engine could load")
    counted = info.safetensors.parameters if info.safetensors and not model.pick else {}
    return Listing(model, revision, tuple(files), counted)


def pipeline_folders(index: object) -> frozenset[str] | None:
    """The folders that a model_index.json names; None where it is none."""
    if not isinstance(index, dict):
        return None
    return frozenset(str(name) for name, value in index.items() if isinstance(value, list) and not name.startswith("_"))


def headers() -> dict[str, str]:
    """What a request for a file carries: the token of HF_TOKEN, or of the hub's own login. Raises WeightsError."""
    return {"User-Agent": "modelgrid", **_authorization()}


def hub_answers(timeout_s: float = 3.0) -> bool:
    """Whether models can be had from the hub now: it knows one that all hubs have. A proxy's page is no answer."""
    if is_offline():
        return False
    import httpx

    try:
        answer = httpx.get(f"{endpoint()}/api/models/{PROBE}", timeout=timeout_s, follow_redirects=True)
        return answer.status_code == 200 and isinstance(answer.json(), dict)
    except (WeightsError, httpx.HTTPError, ValueError, OSError):
        return False


def is_offline() -> bool:
    """Whether the user asked that no hub be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _authorization() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    if token and not (token.isascii() and token.isprintable()):  # what would be raised of it could show it
        raise WeightsError("cannot ask the hub: HF_TOKEN has characters that no request can carry (copy it anew)")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _components(model: HubModel, revision: str, files: Iterable[File], timeout_s: float) -> frozenset[str] | None:
    """None also where the hub doesn't show it: the pull will say why."""
    if model.pick or not any(file.name == PIPELINE and file.size_bytes <= LONGEST_CONFIG for file in files):
        return None
    import httpx

    url = _url(model, revision, PIPELINE)
    answer = httpx.get(url, headers=headers(), timeout=timeout_s, follow_redirects=True)
    return pipeline_folders(_json(answer.content)) if answer.status_code == 200 else None


def _url(model: HubModel, revision: str, name: str) -> str:
    return f"{endpoint()}/{model.repository}/resolve/{revision}/{quote(name)}"


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None

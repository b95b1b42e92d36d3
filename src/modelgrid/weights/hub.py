"""The model hub: what it has, and whether it answers. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` hold."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from modelgrid.weights.choose import File, choose_files
from modelgrid.weights.explain import endpoint, explained
from modelgrid.weights.source import WeightsError

PROBE = "sentence-transformers/all-MiniLM-L6-v2"  # a model that every hub and mirror has


@dataclass(frozen=True, slots=True)
class Listing:
    """What a hub has of a model, at one revision."""

    source: str
    revision: str
    files: tuple[File, ...]
    parameters: Mapping[str, int] = field(default_factory=dict)  # by dtype, where the hub has counted them

    def url(self, file: File) -> str:
        """Where a file is had."""
        return f"{endpoint()}/{self.source}/resolve/{self.revision}/{quote(file.name)}"


def list_files(source: str, timeout_s: float) -> Listing:
    """What would be pulled, and its sizes. Raises WeightsError."""
    if is_offline():
        raise WeightsError(f"cannot ask the hub for {source}: HF_HUB_OFFLINE is set (unset it, or use a local path)")
    from huggingface_hub import HfApi

    with explained(f"ask the hub for {source}", source):
        api = HfApi(endpoint=endpoint(), token=os.environ.get("HF_TOKEN"))
        info = api.model_info(source, files_metadata=True, timeout=timeout_s)
    siblings = info.siblings or []
    files = choose_files(File(at.rfilename, at.size or 0, at.lfs.sha256 if at.lfs else None) for at in siblings)
    if not files:
        raise WeightsError(f"cannot pull {source}: the hub has no files of it that an engine could load")
    counted = info.safetensors.parameters if info.safetensors else {}
    return Listing(source, info.sha or "main", tuple(files), counted)


def headers() -> dict[str, str]:
    """What a request for a file carries: the token of HF_TOKEN, or of the hub's own login."""
    from huggingface_hub import get_token

    token = get_token()
    return {"User-Agent": "modelgrid", **({"Authorization": f"Bearer {token}"} if token else {})}


def hub_answers(timeout_s: float = 3.0) -> bool:
    """Whether models can be had from the hub now: it knows one that all hubs have. A proxy's page is no answer."""
    if is_offline():
        return False
    import httpx

    try:
        answer = httpx.get(f"{endpoint()}/api/models/{PROBE}", timeout=timeout_s, follow_redirects=True)
        return answer.status_code == 200 and isinstance(answer.json(), dict)
    except (httpx.HTTPError, ValueError, OSError):
        return False


def is_offline() -> bool:
    """Whether the user asked that no hub be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")

"""A server that runs elsewhere and speaks OpenAI's API: a provider, or another modelgrid."""

from __future__ import annotations

from urllib.parse import urlsplit

from modelgrid.engines.checks import strangers
from modelgrid.engines.engine import Problem
from modelgrid.engines.types import TYPES
from modelgrid.spec import Asleep, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import OPERATIONS, PATHS
from modelgrid.spec.weights import Estimate, Weights


class Remote:
    """Nothing is started, and no first request is sent: there it might cost money, or wake a model up."""

    name = "remote"
    runtime = "remote"
    summary = "any OpenAI-compatible server, also another modelgrid"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        return model.operations or TYPES.get(model.type or "", OPERATIONS)

    def problems(self, model: ModelSpec) -> list[Problem]:
        found = strangers(model, "url", "urls", "key", "served", "type")
        if model.url and model.urls:
            found.append(Problem("urls", "is there beside url: remove one"))
        if not model.url and not model.urls:
            found.append(Problem("url", "is missing: write the OpenAI base URL, for example http://127.0.0.1:8080/v1"))
        if model.url and (why := _wrong(model.url)):
            found.append(Problem("url", why))
        found += [Problem("urls", why) for url in model.urls if (why := _wrong(url))]
        if model.scaling.max > (servers := len(_urls(model)) or 1):
            why = f"{model.scaling.max} is more than there are servers, which is {servers}: name more of them in urls"
            found.append(Problem("scaling.max", why))
        if model.health is not None and not model.health.startswith("/"):
            found.append(Problem("health", f"{model.health!r} is not a path: write it with a slash in front"))
        return found

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """Nothing of this machine."""
        return Estimate(())

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        return None

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        return Launch(
            model=model.name,
            revision=model.revision,
            served=model.served or model.name,
            urls=tuple(map(base_url, _urls(model))),
            key=model.key,
            health=model.health or "/models",
        )


def base_url(url: str) -> str:
    """What ends before ``/chat/completions``: without a path it is ``/v1``, and a whole endpoint is cut short."""
    bare = url.strip().rstrip("/")
    for path, *_ in PATHS.values():
        if path.startswith("/v1/"):
            bare = bare.removesuffix(path.removeprefix("/v1")).rstrip("/")
    return bare if urlsplit(bare).path else f"{bare}/v1"


def _urls(model: ModelSpec) -> tuple[str, ...]:
    return model.urls or ((model.url,) if model.url else ())


def _wrong(url: str) -> str | None:
    try:
        parts = urlsplit(url.strip())
        has_host = parts.hostname is not None and parts.port != 0
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.username is not None or parts.password is not None:
        return "holds a name or a password: put the key in key:"
    if parts.scheme not in ("http", "https") or not has_host:
        return f"{url!r} is not a URL that starts with http:// or https:// and a host"
    if parts.query or parts.fragment:
        return f"{url!r} has more than a path: remove what follows ? or #"
    return None

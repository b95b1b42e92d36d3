"""A launch: all that a runtime has to know to run one replica."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from modelgrid.spec.machine import LOCAL
from modelgrid.spec.model import ModelName, ReplicaId


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python environment that an engine needs, made when first needed and shared by what needs the same.

    ``torch`` asks for the torch build of this machine's hardware before the rest. ``overrides`` are
    requirements that win over what packages ask for. ``files`` are written below site-packages.
    ``links_modelgrid`` makes ``import modelgrid`` work in it, without modelgrid's own requirements.
    """

    name: str
    requirements: tuple[str, ...] = ()
    requirements_file: str | None = None  # absolute path; its content is part of the key
    torch: str | None = None  # e.g. "torch==2.13.0"
    overrides: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    links_modelgrid: bool = False

    def key(self, requirements_text: str = "") -> str:
        """Folder name: environments with one key are interchangeable."""
        facts = json.dumps([asdict(self), requirements_text], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first real request: READY means that it was answered with a status below 500."""

    path: str
    body: bytes
    method: str = "POST"
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Post:
    """A request to an engine, below the server's root, which is answered when what it asks for is done."""

    path: str
    body: bytes = b""  # JSON


@dataclass(frozen=True, slots=True)
class SleepCalls:
    """How an engine is told to sleep and to wake. It takes both again where an answer was lost."""

    sleep: Post  # "/sleep?level=1"
    wake: tuple[Post, ...]  # one after the other: "/wake_up"
    is_sleeping: str  # a GET that answers {"is_sleeping": …}; false when the last of `wake` is done
    timeout_s: float = 120.0  # for all of it, either way


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Where an engine tells its load: a page of Prometheus metrics, and the gauges on it. Of several with one name (a
    label for each model or rank) the sum counts, for `cache` the largest. The page may want the engine's key."""

    path: str  # below the server's root
    running: str  # requests that it computes now
    waiting: str  # requests that wait within it
    cache: str | None = None  # the share of its KV cache that is in use, 0 to 1
    outlives: bool = False  # it works on after its requests are answered (videos): its load counts as in flight


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run, where it will be heard, and what tells that it works.

    ``argv``, ``env`` values and ``health`` may hold the placeholders ``{port}``, ``{host}``, ``{python}``
    (the environment's interpreter, or modelgrid's own), ``{bin}`` (that interpreter's folder). A runtime fills
    them in; ``{{`` stands for a brace. A remote launch has no argv and ``urls``.

    ``refusal`` is why it can't run where it was placed, and the next step: it is told instead of being started.
    """

    model: ModelName
    revision: str
    served: str  # the name that the engine knows the model by
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    environment: Environment | None = None
    cwd: str | None = None
    port: int | None = None
    urls: tuple[str, ...] = ()  # remote: base URLs, ending before /chat/completions; each replica has one of them
    key: str | None = field(default=None, repr=False)  # bearer token that the replica wants
    health: str = "/health"  # path below the server's root; remote: below its base URL
    first_request: FirstRequest | None = None
    memory_bytes: int = 0
    gpus: tuple[int, ...] | None = None  # the driver's indices of those that it may see; None: all of them
    sleep: SleepCalls | None = None  # how it is put to sleep; None: it can't sleep
    load: EngineLoad | None = None  # where it tells its load; None: nowhere
    install: str | None = None  # what to do where the program of argv isn't there
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """The replica's main process lives (a remote one: is registered)."""

    url: str  # OpenAI base URL, e.g. http://127.0.0.1:40213/v1
    root: str  # where `Launch.health` is joined to, e.g. http://127.0.0.1:40213
    memory_bytes: int | None = None  # what its processes hold now; None where that can't be had
    pid: int | None = None
    gpu_bytes: Mapping[str, int] = field(default_factory=dict)  # what they hold of GPUs, by `Device.name`


@dataclass(frozen=True, slots=True)
class Exited:
    """The replica's main process is gone. `processes` of its group may still live and hold memory."""

    why: str  # "exited with code 1", "killed by SIGKILL", "gone while nobody watched"
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """One replica as a runtime sees it now."""

    replica: ReplicaId
    model: ModelName
    revision: str
    state: Running | Exited
    machine: str = LOCAL
    devices: tuple[str, ...] = ()  # the GPUs that it was started on, by `Device.name`

"""The configuration as the rest of modelgrid sees it: complete, checked, in bytes and seconds."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelgrid.config.document import Value
from modelgrid.config.variables import masked
from modelgrid.spec import ModelName, ModelSpec, VirtualSpec


@dataclass(frozen=True, slots=True)
class CorsConfig:
    """Which pages of other sites a browser lets call the gateway."""

    origins: tuple[str, ...]  # https://app.example.com; "*" alone: all of them
    headers: tuple[str, ...] = ()  # that they may send beside those that callers send anyway; "*": whatever they like
    credentials: bool = False
    max_age_s: float = 600.0  # how long a browser remembers what it was told


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Files in PEM. `hsts_s` is how long a browser remembers to come by TLS only; 0: it isn't told to."""

    certificate: str
    key: str
    hsts_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where callers are served, and what they may use at most."""

    host: str = "127.0.0.1"
    port: int = 9000
    workers: int = 1
    body_bytes: int = 64 * 2**20
    upload_bytes: int = 2 * 2**30
    connections: int = 4096  # open at once, in each worker
    connect_s: float = 5.0  # to reach an engine
    first_byte_s: float = 600.0  # until an engine begins to answer
    stall_s: float = 300.0  # between two parts of its answer
    grace_s: float = 30.0  # how long requests in flight may go on when modelgrid stops
    tls: TlsConfig | None = None
    cors: CorsConfig | None = None
    trusted_proxies: tuple[str, ...] = ()  # networks whose word on where a caller comes from counts
    log_requests: Literal["off", "errors", "all"] = "off"
    log_format: Literal["text", "json"] = "text"

    @property
    def address(self) -> str:
        """Where it listens, as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine's own users can come: then it may be served without a key."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What models may take. None: measured."""

    memory_bytes: int | None = None  # of each GPU; where there is none, of main memory
    main_memory_bytes: int | None = None  # beside GPUs
    gpus: tuple[int, ...] | None = None  # their indices; None: all that are visible


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where large things lie. None: below the data folder of `Paths`."""

    environments: Path | None = None
    models: Path | None = None


@dataclass(frozen=True, slots=True)
class Rent:
    """What an ``llm_config.json`` asks to rent, as it was written."""

    mode: Literal["pod", "serverless"]
    compute: Mapping[str, Value] = field(default_factory=dict)
    place: Mapping[str, Value] = field(default_factory=dict)  # the section that is called as the mode is


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `path` is None for the embedded default."""

    gateway: GatewayConfig = GatewayConfig()
    machine: MachineConfig = MachineConfig()
    storage: StorageConfig = StorageConfig()
    models: tuple[ModelSpec, ...] = ()
    virtual: tuple[VirtualSpec, ...] = ()
    rent: Rent | None = None
    notes: tuple[str, ...] = ()  # for whoever serves or checks it: nothing is wrong, and something is to be known
    currency: str = ""  # of prices: a label
    path: Path | None = None
    digest: str = ""  # of the text and the overrides: two with one digest came from the same words
    variables: frozenset[str] = frozenset()  # names of the environment variables that ${…} took in
    secrets: tuple[str, ...] = field(default=(), repr=False)  # values of ${…_KEY} and the like, never shown

    @property
    def names(self) -> tuple[ModelName, ...]:
        """The models' names, then those of the virtual ones."""
        return (*(spec.name for spec in self.models), *(spec.name for spec in self.virtual))

    def masked(self, text: str) -> str:
        """`text` of others, such as an engine's log, as it may be shown."""
        return masked(text, self.secrets)

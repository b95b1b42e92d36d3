"""The configuration in effect, as YAML that loads to the same; secrets are masked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from modelgrid.config.config import Config
from modelgrid.config.variables import masked
from modelgrid.spec import ModelSpec
from modelgrid.spec.secret import MASK, is_secret_name

_OPTION = re.compile(r"--?[\w-]+")
_SIZES = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_DURATIONS = (("h", 3600), ("m", 60), ("s", 1))


def show(config: Config) -> str:
    """What holds after the file, the environment and the command line."""
    gateway, machine, storage = config.gateway, config.machine, config.storage
    shown = _without_empty(
        {
            "gateway": {
                "host": gateway.host,
                "port": gateway.port,
                "workers": gateway.workers,
                "body": _size(gateway.body_bytes),
                "connections": gateway.connections,
                "grace": _duration(gateway.grace_s),
            },
            "machine": {"memory": _size(machine.memory_bytes)},
            "storage": {"environments": _text(storage.environments), "models": _text(storage.models)},
            "models": {str(spec.name): _model(spec) for spec in config.models},
        }
    )
    masked = _masked(shown, config.secrets)
    return yaml.dump(masked, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def _model(spec: ModelSpec) -> dict[str, Any]:
    return {
        "engine": spec.engine,
        "source": spec.source,
        "aliases": list(spec.aliases),
        "args": _masked_arguments(spec.args),
        "env": {name: MASK if is_secret_name(name) else value for name, value in spec.env.items()},
        "needs": {"memory": _size(spec.memory_bytes)},
        "scaling": {
            "min": spec.scaling.min,
            "max": spec.scaling.max,
            "idle": _duration(spec.scaling.idle_s),
            "target": spec.scaling.target,
        },
        "limits": {"queue": spec.limits.queue, "wait": _duration(spec.limits.wait_s)},
        "command": _masked_arguments(spec.command),
        "service_script": spec.script,
        "requirements": spec.requirements,
        "cwd": spec.cwd,
        "port": spec.port,
        "health": spec.health,
        "endpoint": spec.endpoint,
        "type": spec.type,
        "url": spec.url,
        "key": spec.key and MASK,
        "served": spec.served,
        "start_timeout": _duration(spec.start_timeout_s),
        "health_timeout": _duration(spec.health_timeout_s),
        "stop_grace": _duration(spec.stop_grace_s),
        "trust_remote_code": spec.trust_remote_code or None,
    }


def _masked_arguments(words: Sequence[str]) -> list[str]:
    """``--api-key X`` and ``--api-key=X`` without X, in case somebody wrote one."""
    shown = []
    hides_next = False
    for word in words:
        option, separator, _ = word.partition("=")
        names_secret = bool(_OPTION.fullmatch(option)) and is_secret_name(option)
        is_value = hides_next and not _OPTION.fullmatch(word)
        shown.append(MASK if is_value else f"{option}={MASK}" if names_secret and separator else word)
        hides_next = names_secret and not separator
    return shown


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, secrets) for item in value]
    if isinstance(value, str):
        return masked(value, secrets).replace("${", "$${")
    return value


def _without_empty(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_empty(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item is not None and item != {} and item != []}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _size(count: int | None) -> str | None:
    """The largest unit that says it exactly."""
    if count is None:
        return None
    for unit, factor in _SIZES:
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def _duration(seconds: float) -> str:
    for unit, factor in _DURATIONS:
        if seconds and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


class _Dumper(yaml.SafeDumper):
    """Short lists of words on one line; no anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  the signature is PyYAML's
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _represent_list)

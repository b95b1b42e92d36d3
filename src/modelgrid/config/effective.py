"""The configuration in effect, as YAML that loads to the same; secrets are masked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from modelgrid.config.config import Config, CorsConfig, TlsConfig
from modelgrid.config.variables import masked
from modelgrid.spec import ModelSpec, Parameters, Quota, Routing, Scaling, VirtualSpec
from modelgrid.spec.secret import MASK, is_secret_name

_MASKED = json.dumps(MASK)
_OPTION = re.compile(r"--?[\w-]+")
_NOT_IN_YAML = re.compile("[^ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
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
                "upload": _size(gateway.upload_bytes),
                "connections": gateway.connections,
                "connect": _duration(gateway.connect_s),
                "first_byte": _duration(gateway.first_byte_s),
                "stall": _duration(gateway.stall_s),
                "grace": _duration(gateway.grace_s),
                "tls": _tls(gateway.tls),
                "cors": _cors(gateway.cors),
                "trusted_proxies": list(gateway.trusted_proxies),
                "log": {"requests": gateway.log_requests, "format": gateway.log_format},
            },
            "machine": {
                "memory": _size(machine.memory_bytes),
                "main_memory": _size(machine.main_memory_bytes),
                "gpus": None if machine.gpus is None else _Json(json.dumps(machine.gpus)),  # also when it is empty
            },
            "storage": {"environments": _text(storage.environments), "models": _text(storage.models)},
            "usage": {"currency": config.currency or None},
            "models": {str(spec.name): _model(spec) for spec in config.models},
            "virtual": {str(spec.name): _virtual(spec) for spec in config.virtual},
        }
    )
    masked = _masked(shown, config.secrets)
    return yaml.dump(masked, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def _tls(tls: TlsConfig | None) -> dict[str, Any]:
    return {} if tls is None else {"certificate": tls.certificate, "key": tls.key, "hsts": _duration(tls.hsts_s)}


def _cors(cors: CorsConfig | None) -> dict[str, Any]:
    if cors is None:
        return {}
    return {
        "origins": list(cors.origins),
        "headers": list(cors.headers),
        "credentials": cors.credentials,
        "max_age": _duration(cors.max_age_s),
    }


def _model(spec: ModelSpec) -> dict[str, Any]:
    quota = spec.limits.quota or Quota()
    return {
        "engine": spec.engine,
        "source": spec.source,
        "aliases": list(spec.aliases),
        "args": _masked_arguments(spec.args),
        "env": {name: MASK if is_secret_name(name) else value for name, value in spec.env.items()},
        "needs": {
            "memory": _size(spec.memory_bytes),
            "gpus": None if spec.gpus is None else _number(spec.gpus),
            "main_memory": _size(spec.main_bytes),
        },
        "scaling": {
            "min": spec.scaling.min,
            "max": spec.scaling.max,
            "idle": _duration(spec.scaling.idle_s),
            "target": spec.scaling.target,
            "slo": _objective(spec.scaling),
        },
        "price": {} if spec.price is None else {n: p for n, p in asdict(spec.price).items() if p or n == "cached"},
        "priority": spec.priority or None,
        "sleep": spec.sleep,
        "limits": {
            "queue": spec.limits.queue,
            "wait": _duration(spec.limits.wait_s),
            "progress": spec.limits.progress,
            "requests_per_minute": quota.requests_per_minute,
            "tokens_per_minute": quota.tokens_per_minute,
            "concurrency": quota.concurrency,
        },
        "parameters": _parameters(spec.parameters),
        "routing": _routing(spec.routing),
        "operations": list(spec.operations),
        "command": _masked_arguments(spec.command),
        "service_script": spec.script,
        "requirements": spec.requirements,
        "cwd": spec.cwd,
        "port": spec.port,
        "health": spec.health,
        "endpoint": spec.endpoint,
        "type": spec.type,
        "url": spec.url,
        "urls": list(spec.urls),
        "key": spec.key and MASK,
        "served": spec.served,
        "start_timeout": _duration(spec.start_timeout_s),
        "health_timeout": _duration(spec.health_timeout_s),
        "stop_grace": _duration(spec.stop_grace_s),
        "trust_remote_code": spec.trust_remote_code or None,
    }


def _objective(scaling: Scaling) -> dict[str, Any]:
    if scaling.ttft_s is None:
        return {}
    return {"ttft": _duration(scaling.ttft_s), "attain": scaling.attain}


def _virtual(spec: VirtualSpec) -> dict[str, Any]:
    virtual = spec.virtual
    choices = [
        _without_empty(
            {"model": choice.model, "weight": _number(choice.weight), "parameters": _parameters(choice.parameters)}
        )
        for choice in virtual.choices
    ]
    return {
        "models": choices,
        "choose": virtual.choose,
        "spill_over": virtual.spill_over,
        "fall_back": virtual.fall_back,
        "aliases": list(spec.aliases),
    }


def _parameters(parameters: Parameters | None) -> dict[str, Any]:
    if parameters is None:
        return {}
    return {
        "set": {name: _Json(_MASKED if is_secret_name(name) else text) for name, text in parameters.set.items()},
        "default": {
            name: _Json(_MASKED if is_secret_name(name) else text) for name, text in parameters.default.items()
        },
        "cap": {name: _number(most) for name, most in parameters.cap.items()},
        "strip": list(parameters.strip),
    }


def _routing(routing: Routing) -> dict[str, Any]:
    if routing.policy == "least_outstanding":
        return {}
    return {"policy": routing.policy, "session": list(routing.session), "slack": _number(routing.slack)}


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
    if isinstance(value, _Json):
        return _Json(json.dumps(_masked(json.loads(value.text), secrets), ensure_ascii=False))
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


def _number(value: float) -> float:
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


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


@dataclass(frozen=True, slots=True)
class _Json:
    """A value as JSON, which is shown as it is: a text in quotes is a text, whatever is in it."""

    text: str


class _Dumper(yaml.SafeDumper):
    """Short lists of words on one line; no anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  the signature is PyYAML's
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


def _represent_json(dumper: yaml.SafeDumper, data: _Json) -> yaml.Node:  # noqa: ARG001  the signature is PyYAML's
    readable = _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", data.text)
    node = yaml.compose(readable, Loader=yaml.SafeLoader)
    assert node is not None
    return node


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(_Json, _represent_json)

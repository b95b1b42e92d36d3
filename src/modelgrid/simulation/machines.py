"""Descriptions of machines and models: ``2x8xH100``, or a YAML file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelgrid.simulation.gpus import GPUS, UNKNOWN
from modelgrid.simulation.speed import CPU, Hardware, Speed
from modelgrid.spec.machine import LOCAL, MAIN, Device, Machine
from modelgrid.spec.units import parse_bytes, parse_seconds

MAIN_BYTES = 256 * 10**9  # of a machine with GPUs, where nobody says how much
SHARE_FOR_MODELS = 0.95  # of a GPU's memory, as `modelgrid serve` plans with it; memory that is written counts whole
_EXAMPLE = "8xH100, 2x8xH100, 4x24GB, cpu:64GiB, or a YAML file"
_MACHINE_FIELDS = ("name", "count", "gpus", "gpu", "memory", "main_memory", "price")
_MODEL_FIELDS = ("memory", "gpus", "load", "prefill", "step", "step_more", "running", "objective", "priority", "sleep")


class DescriptionError(Exception):
    """Machines or models can't be made of what was written; the message says what to write."""


@dataclass(frozen=True, slots=True)
class MadeUp:
    """What a file says of one model: what it needs, and what of its speed is known."""

    memory_bytes: int | None = None
    gpus: float | None = None
    objective_s: float | None = None
    priority: int | None = None
    sleep: int | None = None  # the level at which it may sleep
    speed: Mapping[str, float] = field(default_factory=dict)  # fields of Speed

    def over(self, estimated: Speed) -> Speed:
        """What is known in the place of what was estimated."""
        known: dict[str, Any] = dict(self.speed)
        if "most_running" in known:
            known["most_running"] = int(known["most_running"])
        return replace(estimated, **known)


@dataclass(frozen=True, slots=True)
class Described:
    """Machines, how fast each is, what each costs an hour, and what was said of models."""

    machines: tuple[Machine, ...] = ()
    hardware: Mapping[str, Hardware] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, MadeUp] = field(default_factory=dict)


def read_machines(written: str) -> Described:
    """From ``--machines``: text, or the path of a YAML file. Raises DescriptionError."""
    path = Path(written).expanduser()
    if path.suffix in (".yaml", ".yml") or "/" in written:
        return _read_file(path)
    return machines_of(written)


def machines_of(text: str) -> Described:
    """``8xH100``: a machine of eight GPUs; ``2x8xH100``: two of them; ``4x24GB``: GPUs that nobody knows, by memory;
    ``cpu:64GiB``: a machine without; several of these with ``+`` between them. Raises DescriptionError."""
    made: list[tuple[Machine, Hardware]] = []
    for part in text.split("+"):
        made += _machines(part.strip(), len(made))
    if len(made) == 1:
        machine, hardware = made[0]
        made = [(replace(machine, name=LOCAL), hardware)]
    return Described(tuple(m for m, _ in made), {m.name: hardware for m, hardware in made})


def _machines(text: str, before: int) -> list[tuple[Machine, Hardware]]:
    if match := re.fullmatch(r"(?:(\d+)x)?cpu:(\S+)", text, re.IGNORECASE):
        count, memory = _count(match[1], text), _size(match[2])
        return [(_cpu(f"machine-{before + n + 1}", memory), CPU) for n in range(count)]
    match = re.fullmatch(r"(?:(?:(\d+)x)??(\d+)x)?(\d+(?:\.\d+)?[kmgt]i?b|[a-z][a-z0-9.-]*)", text, re.IGNORECASE)
    if not match:
        raise DescriptionError(f"cannot make machines of {text!r} (write for example {_EXAMPLE})")
    memory, hardware = _gpu(match[3])
    machines, gpus = _count(match[1], text), _count(match[2], text)
    return [(_machine(f"machine-{before + n + 1}", gpus, memory, MAIN_BYTES), hardware) for n in range(machines)]


def _count(written: str | None, text: str) -> int:
    if (count := int(written or 1)) == 0:
        raise DescriptionError(
            f"cannot make machines of {text!r}: it counts 0 (one at least; write cpu:64GiB for none)"
        )
    return count


def _gpu(name: str) -> tuple[int, Hardware]:
    if known := GPUS.get(name.lower()):
        return int(known.memory_bytes * SHARE_FOR_MODELS), known.hardware
    if name[:1].isdigit():
        return _size(name), UNKNOWN
    near = difflib.get_close_matches(name.lower(), GPUS, n=1)
    hint = f"did you mean {GPUS[near[0]].name}?" if near else f"known are {', '.join(g.name for g in GPUS.values())}"
    raise DescriptionError(f"cannot find the GPU {name!r}: {hint} (another one by its memory: 8x24GB)")


def _size(text: object, what: str = "the memory of a machine") -> int:
    try:
        return parse_bytes(str(text))
    except ValueError as error:
        raise DescriptionError(f"cannot use {what}: {error}") from error


def _seconds(item: dict[str, Any], field: str, name: str) -> float:
    try:
        seconds = parse_seconds(item[field])
    except ValueError as error:
        raise DescriptionError(f"cannot use model {name}: {field}: {error}") from error
    if field == "step" and not seconds:
        raise DescriptionError(f"cannot use model {name}: step: {item[field]!r} is not above 0")
    return seconds


def _machine(name: str, gpus: int, gpu_bytes: int, main_bytes: int) -> Machine:
    devices = tuple(Device(f"gpu{index}", gpu_bytes, gpu_bytes, index) for index in range(gpus))
    return Machine((*devices, Device(MAIN, main_bytes, main_bytes)), name, "cuda", "described")


def _cpu(name: str, memory_bytes: int) -> Machine:
    return Machine((Device(MAIN, memory_bytes, memory_bytes),), name, "cpu", "described")


def _read_file(path: Path) -> Described:
    import yaml

    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise DescriptionError(f"cannot read {path}: {error.strerror} (name a file that is there)") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DescriptionError(
            f"cannot read {path}: {_what_is_wrong(error)} (it is YAML, with `machines:` and `models:`)"
        ) from error
    if not isinstance(value, dict) or (unknown := sorted(set(value) - {"machines", "models"})):
        what = f"it has {', '.join(map(str, unknown))}" if isinstance(value, dict) else "it is no mapping"
        raise DescriptionError(f"cannot read {path}: {what} (it has `machines:` and `models:`)")
    try:
        return _described(value.get("machines") or [], value.get("models") or {})
    except DescriptionError as error:
        raise DescriptionError(f"{path}: {error}") from error


def _what_is_wrong(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)


def _described(written: object, models: object) -> Described:
    if isinstance(written, str):
        described = machines_of(written)
    else:
        if not isinstance(written, list) or not all(isinstance(item, dict) for item in written):
            raise DescriptionError("cannot read `machines:`: it is a list of mappings, or text like 2x8xH100")
        described = _listed(written)
    if not isinstance(models, dict) or not all(isinstance(value, dict) for value in models.values()):
        raise DescriptionError("cannot read `models:`: it is a mapping of names to mappings")
    return replace(described, models={str(name): _model(str(name), value) for name, value in models.items()})


def _listed(items: list[dict[str, Any]]) -> Described:
    machines: list[Machine] = []
    hardware: dict[str, Hardware] = {}
    prices: dict[str, float] = {}
    for number, item in enumerate(items, 1):
        name = str(item.get("name", LOCAL if len(items) == 1 else f"machine-{number}"))
        _known(f"machine {name}", item, _MACHINE_FIELDS)
        count = _whole(item.get("count", 1), f"machine {name}: count")
        for index in range(count):
            own = name if count == 1 else f"{name}-{index + 1}"
            machine, speed = _listed_machine(own, item)
            if own in hardware:
                raise DescriptionError(f"cannot have two machines {own!r}: give each its name")
            machines.append(machine)
            hardware[own] = speed
            if item.get("price") is not None:
                prices[own] = _number(item["price"], f"machine {name}: price")
    return Described(tuple(machines), hardware, prices)


def _listed_machine(name: str, item: dict[str, Any]) -> tuple[Machine, Hardware]:
    gpus = _whole(item.get("gpus", 1 if "gpu" in item else 0), f"machine {name}: gpus")
    main = _size(item["main_memory"], f"machine {name}: main_memory") if "main_memory" in item else MAIN_BYTES
    if not gpus:
        return _cpu(name, _size(item["memory"], f"machine {name}: memory") if "memory" in item else main), CPU
    if "gpu" not in item and "memory" not in item:
        raise DescriptionError(f"cannot make machine {name}: its GPUs need `gpu: H100`, or `memory: 80GB` each")
    memory, hardware = _gpu(str(item["gpu"])) if "gpu" in item else (0, UNKNOWN)
    if "memory" in item:
        memory = _size(item["memory"], f"machine {name}: memory")
    return _machine(name, gpus, memory, main), hardware


def _model(name: str, item: dict[str, Any]) -> MadeUp:
    _known(f"model {name}", item, _MODEL_FIELDS)
    speed: dict[str, float] = {}
    for written, known in (("load", "load_s"), ("step", "step_s"), ("step_more", "step_more_s")):
        if written in item:
            speed[known] = _seconds(item, written, name)
    if "prefill" in item:
        speed["prefill_tokens_s"] = _number(item["prefill"], f"model {name}: prefill")
    if "running" in item:
        speed["most_running"] = _whole(item["running"], f"model {name}: running")
    return MadeUp(
        memory_bytes=_size(item["memory"], f"model {name}: memory") if "memory" in item else None,
        gpus=_number(item["gpus"], f"model {name}: gpus") if "gpus" in item else None,
        objective_s=_seconds(item, "objective", name) if "objective" in item else None,
        priority=_whole(item["priority"], f"model {name}: priority", least=-1000) if "priority" in item else None,
        sleep=_level(item["sleep"], f"model {name}: sleep") if "sleep" in item else None,
        speed=speed,
    )


def _known(what: str, item: dict[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [str(name) for name in item if name not in known]:
        raise DescriptionError(
            f"cannot read {what}: there is no field {', '.join(unknown)} (there are {', '.join(known)})"
        )


def _whole(value: object, what: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DescriptionError(f"cannot use {what}: {value!r} is not a whole number from {least}")
    return value


def _level(value: object, what: str) -> int:
    if value not in (1, 2) or isinstance(value, bool):
        raise DescriptionError(f"cannot use {what}: {value!r} is not 1 (weights wait in main memory) or 2")
    return 1 if value == 1 else 2


def _number(value: object, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise DescriptionError(f"cannot use {what}: {value!r} is not a number above 0")
    return float(value)

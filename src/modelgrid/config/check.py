"""What no single field shows: names that collide, bounds that contradict, what an engine says of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelgrid.config.build import is_file, is_folder
from modelgrid.config.document import Document, Value
from modelgrid.config.problem import did_you_mean
from modelgrid.engines.engine import Engine
from modelgrid.spec import ModelSpec

_PAIRS = (("service_script", "script"), ("start_timeout", "startup_time"))  # two spellings of one field

_POLICIES = ("least_outstanding", "session", "prefix")
_OF_POLICIES = {"session": ("session",), "slack": ("session", "prefix")}


def check_models(document: Document, models: Mapping[str, Value], engines: Mapping[str, Engine]) -> None:
    """Note what is wrong between models and within each, also where the schema has found something already."""
    for name, section in models.items():
        if isinstance(section, dict):
            _check_engine(document, name, section, engines)
            _check_spellings(document, name, section)
            _check_scaling(document, name, section)
            _check_routing(document, name, section)
        elif section is None:
            document.add(
                ("models", name), f"says nothing: write at least an engine ({', '.join(engines)})", of_key=True
            )


def check_spec(document: Document, spec: ModelSpec, engines: Mapping[str, Engine], gateway_port: int) -> None:
    """Note what the model's engine finds wrong with it, and what no engine could do."""
    if spec.port == gateway_port:
        step = "choose another, or remove it, and one that is free is found"
        document.add(("models", spec.name, "port"), f"{spec.port} is where callers are served (gateway.port): {step}")
    if spec.port is not None and spec.scaling.max > 1:
        step = f"remove it, and each replica gets one of its own; or set scaling.max to 1 (it is {spec.scaling.max})"
        document.add(("models", spec.name, "port"), f"{spec.port} can be held by one replica only: {step}")
    engine = engines.get(spec.engine)
    for problem in engine.problems(spec) if engine else ():
        document.add(("models", spec.name, *problem.field.split(".")), problem.message)


def check_files(document: Document, spec: ModelSpec, section: Mapping[str, Value]) -> None:
    """Note which files and folders that the model's `section` names are not there."""
    for field, path, kind in (
        ("service_script", spec.script, "file"),
        ("script", spec.script, "file"),
        ("requirements", spec.requirements, "file"),
        ("cwd", spec.cwd, "folder"),
    ):
        is_there = is_file if kind == "file" else is_folder
        if path is not None and section.get(field) is not None and not is_there(Path(path)):
            document.add(("models", spec.name, field), f"there is no {kind} {path}: make it, or correct the path")


def _check_engine(document: Document, name: str, section: dict[str, Value], engines: Mapping[str, Engine]) -> None:
    engine = section.get("engine")
    if engine is None and not section.get("service_script") and not section.get("script"):
        message = f"says no engine: add `engine:` with one of {', '.join(engines)}"
        document.add(("models", name), message, of_key=True)
    elif isinstance(engine, str) and engine not in engines:
        known = ", ".join(engines)
        message = f"{engine!r} is not an engine: there is {known}{did_you_mean(engine, engines)}"
        document.add(("models", name, "engine"), message)


def _check_spellings(document: Document, name: str, section: dict[str, Value]) -> None:
    for one, other in _PAIRS:
        if section.get(one) is not None and section.get(other) is not None:
            message = f"says the same as {one}, which is given too: remove one"
            document.add(("models", name, other), message, of_key=True)


def _check_scaling(document: Document, name: str, section: dict[str, Value]) -> None:
    scaling = section.get("scaling")
    if not isinstance(scaling, dict):
        return
    least, most = _number(scaling.get("min")), _number(scaling.get("max"))
    if least is not None and most is not None and least > most:
        document.add(("models", name, "scaling", "min"), f"{least} is more than max, which is {most}: raise max")
    slo = scaling.get("slo")
    if isinstance(slo, dict) and slo and slo.get("ttft") is None:
        message = "names no objective: add ttft, the time within which an answer should begin (ttft: 500ms)"
        document.add(("models", name, "scaling", "slo"), message, of_key=True)


def _check_routing(document: Document, name: str, section: dict[str, Value]) -> None:
    routing = section.get("routing")
    if not isinstance(routing, dict):
        return
    policy = routing.get("policy") or "least_outstanding"
    for field, belongs in _OF_POLICIES.items():
        if routing.get(field) is not None and policy in _POLICIES and policy not in belongs:
            message = f"does not belong to policy {policy}: remove it, or set policy: {' or '.join(belongs)}"
            document.add(("models", name, "routing", field), message, of_key=True)


def _number(value: Value) -> int | None:
    return int(value) if isinstance(value, str) and value.isdecimal() else None

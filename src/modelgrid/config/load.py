"""Loading: text, environment and command line become one checked `Config`, or a `ConfigError` with every problem."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from modelgrid.config.build import gateway_config, machine_config, model_spec, storage_config, virtual_spec
from modelgrid.config.certificate import certificate_problem
from modelgrid.config.check import check_files, check_models, check_spec
from modelgrid.config.check_virtual import check_names, check_paths, check_virtual, without_strangers
from modelgrid.config.config import Config, GatewayConfig
from modelgrid.config.default import default_text
from modelgrid.config.document import At, Document, Value, read_document
from modelgrid.config.explain import explained, unknown_field
from modelgrid.config.fields import (
    ConfigFile,
    GatewaySection,
    MachineSection,
    ModelSection,
    StorageSection,
    UsageSection,
    VirtualSection,
    name_problem,
)
from modelgrid.config.literal import with_literals
from modelgrid.config.llm_config import Read, is_llm_config, read_llm_config, without_tabs
from modelgrid.config.overrides import apply_environment, apply_options, is_override
from modelgrid.config.problem import ConfigError, ConfigProblem
from modelgrid.config.variables import fill_in, masked
from modelgrid.engines import ENGINES
from modelgrid.spec import ModelSpec, VirtualSpec

_Section = TypeVar("_Section", bound=BaseModel)
_NO_OVERRIDES: Mapping[str, str] = {}


def load_config(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] = _NO_OVERRIDES,
    hub: bool = True,
    memory_bytes: int | None = None,
) -> Config:
    """The configuration of the file at `path`, and of the files that it names, which have to be there.

    Without a `path` it is the embedded default (see `default_text`) for the memory that is configured, else for
    `memory_bytes`. `overrides` is what the command line says: ``{"gateway.port": "9001"}``. Raises ConfigError.
    """
    if path is not None:
        return load_text(_read(path), path=path, environ=environ, overrides=overrides, checks_files=True)
    config = load_text(default_text(hub, memory_bytes), path=None, environ=environ, overrides=overrides)
    if (configured := config.machine.memory_bytes) is not None:
        config = load_text(default_text(hub, configured), path=None, environ=environ, overrides=overrides)
    return config


def load_text(
    text: str,
    *,
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str] = _NO_OVERRIDES,
    checks_files: bool = False,
) -> Config:
    """The configuration of `text`, which stands in the file `path`. Raises ConfigError.

    With `checks_files` a file that is named and not there is a problem as well.
    """
    document = read_document(without_tabs(text))
    beside = read_llm_config(document, environ) if is_llm_config(text, document) else Read()
    if document.problems and not document.values:
        raise ConfigError(_in_order(document.problems, ()), path)
    apply_environment(document, environ)
    apply_options(document, overrides)
    taken = fill_in(document, environ)
    secrets = tuple(sorted({*taken.secrets, *beside.secrets}))
    config = _config(document, (path.parent if path else Path()).absolute(), checks_files=checks_files)
    if document.problems:
        raise ConfigError(_in_order(document.problems, secrets), path)
    digest = _digest(text, environ, overrides)
    known = replace(config, path=path, digest=digest, variables=frozenset(taken.variables), secrets=secrets)
    return replace(known, rent=beside.rent, notes=beside.notes)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        step = "name another with --config, or run: modelgrid config init"
        why = f"cannot read the configuration: {error.strerror} ({step})"
        raise ConfigError([ConfigProblem(None, None, "", why)], path) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        problem = ConfigProblem(line, column, "", "is not UTF-8 text: save the file as UTF-8")
        raise ConfigError([problem], path) from error


def _config(document: Document, folder: Path, *, checks_files: bool) -> Config:
    """What can be made of `document`; its problems are noted in it."""
    values = document.values
    for name in values:
        if name not in ConfigFile.model_fields:
            document.add((name,), unknown_field(name, ConfigFile), of_key=True)
    gateway = _section(document, "gateway", GatewaySection) or GatewaySection()
    machine = _section(document, "machine", MachineSection)
    storage = _section(document, "storage", StorageSection)
    usage = _section(document, "usage", UsageSection) or UsageSection()
    return Config(
        gateway=_gateway(document, gateway, folder, checks_files=checks_files),
        machine=machine_config(machine or MachineSection()),
        storage=storage_config(storage or StorageSection(), folder),
        models=tuple(_models(document, folder, gateway.port, checks_files=checks_files)),
        virtual=tuple(_virtual(document)),
        currency=usage.currency,
    )


def _gateway(document: Document, section: GatewaySection, folder: Path, *, checks_files: bool) -> GatewayConfig:
    gateway = gateway_config(section, folder)
    if gateway.tls is not None and checks_files and (problem := certificate_problem(gateway.tls)) is not None:
        document.add(("gateway", "tls", problem.field), problem.why)
    return gateway


def _models(document: Document, folder: Path, gateway_port: int, *, checks_files: bool) -> list[ModelSpec]:
    models = document.values.get("models") or {}
    if not isinstance(models, dict):
        document.add(("models",), "is a mapping of names: write `NAME: {engine: …, source: …}` below it")
        return []
    check_models(document, models, ENGINES)
    specs = []
    for name, value in models.items():
        at = ("models", name)
        if wrong := name_problem(name):
            document.add(at, wrong, of_key=True)
        section = _validated(document, at, with_literals(document, value, at), ModelSection)
        if section and not wrong:
            spec = model_spec(name, section, folder)
            if spec.script or (isinstance(value, dict) and value.get("engine")):
                check_spec(document, spec, ENGINES, gateway_port)
            if checks_files and isinstance(value, dict):
                check_files(document, spec, value)
            specs.append(spec)
    return specs


def _virtual(document: Document) -> list[VirtualSpec]:
    models, virtual = document.values.get("models") or {}, document.values.get("virtual") or {}
    models = models if isinstance(models, dict) else {}
    if not isinstance(virtual, dict):
        document.add(("virtual",), "is a mapping of names: write `NAME: {models: […]}` below it")
        return []
    check_names(document, models, virtual)
    check_paths(document, models)
    check_virtual(document, models, virtual)
    specs = []
    for name, value in virtual.items():
        at = ("virtual", name)
        if wrong := name_problem(name):
            document.add(at, wrong, of_key=True)
        section = _validated(
            document, at, _choices_with_literals(document, without_strangers(value), at), VirtualSection
        )
        if section and not wrong:
            specs.append(virtual_spec(name, section))
    return specs


def _choices_with_literals(document: Document, value: Value, at: At) -> Value:
    choices = value.get("models") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(choices, list):
        return value
    made = [with_literals(document, choice, (*at, "models", index)) for index, choice in enumerate(choices)]
    return {**value, "models": made}


def _section(document: Document, name: str, kind: type[_Section]) -> _Section | None:
    return _validated(document, (name,), document.values.get(name), kind)


def _validated(document: Document, at: tuple[str, ...], value: Value, kind: type[_Section]) -> _Section | None:
    try:
        return kind.model_validate({} if value is None else value)
    except ValidationError as error:
        for inner, message, of_key in explained(error, kind):
            document.add((*at, *inner), message, of_key=of_key)
        return None


def _in_order(problems: list[ConfigProblem], secrets: tuple[str, ...]) -> list[ConfigProblem]:
    """As the file goes, then what came from outside; each once, and without secrets."""
    clean = [replace(problem, message=masked(problem.message, secrets)) for problem in problems]
    return sorted(
        dict.fromkeys(clean), key=lambda problem: (problem.line is None, problem.line or 0, problem.column or 0)
    )


def _digest(text: str, environ: Mapping[str, str], overrides: Mapping[str, str]) -> str:
    outside = {name: value for name, value in environ.items() if is_override(name)}
    return hashlib.sha256(json.dumps([text, outside, dict(overrides)], sort_keys=True).encode()).hexdigest()

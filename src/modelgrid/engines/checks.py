"""Checks of a specification that engines share: which fields and arguments belong, and that there is a source."""

from __future__ import annotations

from modelgrid.engines.engine import Problem
from modelgrid.engines.words import has_option
from modelgrid.spec import ModelSpec
from modelgrid.spec.source import PACKAGE, STAND_IN, HubModel, OllamaTag, is_path, parse_source

# The fields that belong to some engines only, and what each is for. The rest of a model belongs to every engine.
_PURPOSE = {
    "source": "names weights",
    "args": "goes to a process that modelgrid starts",
    "env": "goes to a process that modelgrid starts",
    "command": "is a program of your own (engine: custom)",
    "script": "is a program of your own (engine: custom)",
    "requirements": "makes an environment for a process that modelgrid starts",
    "cwd": "is where a command of your own runs (engine: custom)",
    "port": "is where a process that modelgrid starts listens",
    "endpoint": "is for an engine that serves one path only (engine: custom)",
    "type": "says what a server makes that can make different things",
    "url": "is the address of a server that runs already (engine: remote)",
    "urls": "names servers that run already (engine: remote)",
    "key": "is the key of a server that you know and modelgrid doesn't (engine: remote, engine: custom)",
    "served": "is the name that an engine knows the model by",
    "sleep": "puts an engine to sleep that can (engine: vllm, engine: custom)",
    "trust_remote_code": "runs code that comes with weights",
}


def strangers(model: ModelSpec, *belonging: str) -> list[Problem]:
    """A problem for each field that is set and doesn't belong to the model's engine."""
    return [
        Problem(name, f"does not belong to engine {model.engine}: it {purpose}; remove it")
        for name, purpose in _PURPOSE.items()
        if name not in belonging and getattr(model, name)
    ]


def wrong_source(model: ModelSpec, example: str, *made: str) -> list[Problem]:
    """A problem where the source is missing, or names nothing that the engine could load: before anything is pulled.
    `made` are the kinds without files (STAND_IN, PACKAGE) that it takes beside hub ids and local paths."""
    source = model.source
    if not source:
        return [Problem("source", f"is missing: name the weights by hub id or local path, for example {example}")]
    kind = STAND_IN if source == STAND_IN else PACKAGE if source.startswith(PACKAGE) else None
    wanted = parse_source(source)
    if kind in made or (kind is None and (is_path(source) or isinstance(wanted, HubModel))):
        return []
    takes = f"{model.engine} takes a hub id{', ' + STAND_IN if STAND_IN in made else ''} or a local path"
    if isinstance(wanted, OllamaTag):
        return [Problem("source", f"{source} is a tag of Ollama's: {takes} (for a tag use engine: ollama)")]
    return [Problem("source", f"{source}: {takes}, for example {example}")]


def reserved(model: ModelSpec, *options: tuple[str, str]) -> list[Problem]:
    """A problem for each option among the arguments that modelgrid sets itself. Each comes with what to use instead."""
    return [
        Problem("args", f"{option} is set by modelgrid (use {instead})")
        for option, instead in options
        if has_option(model.args, option)
    ]

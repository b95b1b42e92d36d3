"""A program of the user's own: a command, or a Python script in an environment of its own."""

from __future__ import annotations

from modelgrid.engines.checks import strangers
from modelgrid.engines.engine import Problem
from modelgrid.engines.first import first_request
from modelgrid.engines.pins import SERVICE
from modelgrid.engines.sleep import PATHS, asleep, own_calls
from modelgrid.engines.types import TYPES
from modelgrid.engines.words import PLACEHOLDERS, literal, placeholders, template
from modelgrid.spec import Asleep, Environment, Launch, Machine, ModelSpec, Need, Place, ReplicaId
from modelgrid.spec.operations import CHAT, COMPLETIONS, OPERATIONS, operation_at
from modelgrid.spec.weights import Estimate, Part, Weights

# Of what `pins.SERVICE` has, where there is a requirements.txt: only bounds, so that it has the say.
SERVICE_BOUNDS = ("fastapi>=0.115", "prometheus-client>=0.21", "python-multipart>=0.0.9", "uvicorn>=0.32")

# For a script of which nobody said how much it takes: a registry may lack `needs`. A command has to say it.
SCRIPT_MEMORY_BYTES = 1 << 30

_KNOWN = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)


class Custom:
    """Any server that speaks HTTP on the port that it is told by ``{port}``, ``$PORT`` or a fixed ``port``."""

    name = "custom"
    runtime = "process"
    summary = "a command or a Python script of your own"

    def operations(self, model: ModelSpec) -> tuple[str, ...]:
        if model.operations:
            return model.operations
        if model.endpoint is None:
            return TYPES.get(model.type or "", OPERATIONS)
        at = operation_at(model.endpoint)
        if at is None:
            return ()
        return (CHAT, COMPLETIONS) if at in (CHAT, COMPLETIONS) else (at,)

    def problems(self, model: ModelSpec) -> list[Problem]:
        belonging = ("source", "args", "env", "command", "script", "requirements", "cwd", "port", "endpoint", "type")
        found = strangers(model, *belonging, "key", "served", "sleep")
        if not model.command and not model.script:
            example = 'command: [python3, my_engine.py, --port, "{port}"]'
            found.append(Problem("command", f"is missing: say how to start it, for example {example}"))
        if model.command and model.script:
            found.append(Problem("service_script", "is there beside command: one of the two starts it; remove one"))
        for field, path in (("health", model.health), ("endpoint", model.endpoint)):
            if path is not None and not path.startswith("/"):
                found.append(Problem(field, f"{path!r} is not a path: write it with a slash in front"))
        if model.sleep is not None and model.endpoint in PATHS:
            found.append(Problem("endpoint", f"{model.endpoint!r} is how modelgrid puts it to sleep, and no caller's"))
        for field, texts in (("command", model.command), ("args", model.args)):
            for name in placeholders(texts):
                if name not in PLACEHOLDERS:
                    known = f"there are {_KNOWN}; for the text itself write {{{{{name}}}"
                    found.append(Problem(field, f"{{{name}}} is not a placeholder: {known}"))
        return found + (_problems_of_command(model) if model.command else [])

    def estimate(self, model: ModelSpec, weights: Weights, accelerator: str) -> Estimate:
        """A guess, where nobody said: nothing is known of a program."""
        loaded = Part("weights", int(weights.size_bytes * 1.2), "and a fifth of them")
        program = Part("program", SCRIPT_MEMORY_BYTES, "a guess")
        return Estimate((loaded, program) if weights.size_bytes else (program,))

    def sleep(self, model: ModelSpec, need: Need, weights_bytes: int | None, machine: Machine) -> Asleep | None:
        """Whoever configures it says that it can."""
        return asleep(model, need, weights_bytes, machine)

    def launch(self, model: ModelSpec, replica: ReplicaId, place: Place, weights: str | None, key: str) -> Launch:
        served = model.served or model.name
        asked_for = model.key or key
        program = ("{python}", literal(model.script)) if model.script else map(template, model.command)
        env = {"PORT": "{port}", "HOST": "127.0.0.1"}
        if weights:
            env["MODELGRID_WEIGHTS"] = literal(weights)
        return Launch(
            model=model.name,
            revision=model.revision,
            served=served,
            argv=(*program, *map(template, model.args)),
            env={
                **env,
                **{name: template(value) for name, value in model.env.items()},
                "MODELGRID_ENGINE_KEY": asked_for,
            },
            environment=_environment(model),
            cwd=model.cwd or (model.script.rpartition("/")[0] if model.script else None),
            port=model.port,
            key=asked_for,
            health=model.health or "/health",
            first_request=first_request(self.operations(model), served) if _is_known(model) else None,
            memory_bytes=model.memory_bytes or 0,
            sleep=own_calls(model) if model.sleep is not None else None,
        )


def _problems_of_command(model: ModelSpec) -> list[Problem]:
    found = []
    if model.memory_bytes is None and not model.gpus:
        example = "needs: {memory: 2GiB}"
        found.append(Problem("needs.memory", f"is missing: say how much memory the command takes ({example})"))
    places = (*model.command, *model.args, *model.env.values())
    if model.port is None and "port" not in placeholders(places):
        hint = 'write "{port}" where the command takes its port, or env: {PORT: "{port}"}, or a fixed port:'
        found.append(Problem("command", f"doesn't say where it listens: {hint}"))
    return found


def _environment(model: ModelSpec) -> Environment | None:
    """A script has one of its own, which knows the base class of services; a command has one if it asks for it."""
    if model.requirements:
        bounds = SERVICE_BOUNDS if model.script else ()
        return Environment("custom", bounds, requirements_file=model.requirements, links_modelgrid=True)
    return Environment("custom", SERVICE, links_modelgrid=True) if model.script else None


def _is_known(model: ModelSpec) -> bool:
    """Whether what it can be asked is told, or usual. Of a type that we don't know, health is all there is."""
    return bool(model.operations or model.endpoint) or model.type in (None, "custom", *TYPES)

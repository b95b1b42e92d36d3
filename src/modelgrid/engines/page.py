"""The reference page of the engines, made from what they launch for an example."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

from modelgrid.engines import ENGINES
from modelgrid.engines.engine import Engine
from modelgrid.engines.service import ServiceEngine
from modelgrid.engines.types import TYPES
from modelgrid.spec import MAIN, Device, Launch, Machine, ModelName, ModelSpec, Place, ReplicaId, Share
from modelgrid.spec.operations import OPERATIONS

_INTRODUCTION: Final = """\
# Engines

What `engine:` may be, and what each one does. modelgrid launches servers as they are where there is a good one, each in
a Python environment of its own; what no server does well is done by services of modelgrid. Further engines
[come with packages](../how-to/add-a-model.md#in-a-package).

A replica is ready when its health check has passed *and* a first real request was answered; for what is too costly to
make for nothing (a picture, a song) the health check has to do. It is stopped by SIGTERM, and killed after
`stop_grace`. The key is one that modelgrid makes for each replica, so that nobody reaches the engine past the gateway;
engines without one listen on this machine only, as all do. `{port}` is a free port.

<!-- made by `python -m modelgrid.engines.page`, which prints this page -->
"""

_QWEN: Final = "Qwen/Qwen2.5-7B-Instruct"

# An example for each engine, as the fields of a model; a service has its own.
EXAMPLES: Final[Mapping[str, Mapping[str, object]]] = {
    "vllm": {"source": _QWEN},
    "sglang": {"source": _QWEN},
    "vllm-omni": {"source": "Qwen/Qwen3-Omni-30B-A3B-Instruct"},
    "llamacpp": {"source": "Qwen/Qwen2.5-7B-Instruct-GGUF:Q4_K_M"},
    "ollama": {"source": "ollama:llama3.2:1b"},
    "tgi": {"source": _QWEN},
    "transformers": {"source": "Qwen/Qwen2.5-0.5B-Instruct"},
    "custom": {"command": ("python3", "my_engine.py", "--port", "{port}"), "memory_bytes": 1 << 30},
    "remote": {"url": "https://api.example.com/v1"},
}

_GIB: Final = 1 << 30
_CPU: Final = Place(Machine((Device(MAIN, 64 * _GIB, 64 * _GIB),)), (Share(MAIN, 64 * _GIB),))
_GPU: Final = Place(
    Machine((Device(MAIN, 64 * _GIB, 64 * _GIB), Device("gpu0", 80 * _GIB, 80 * _GIB, 0)), accelerator="cuda"),
    (Share("gpu0", 72 * _GIB),),
)
_MORE_TYPES: Final = ("omni", "vision")  # that some engines know, beside those of every server


def reference() -> str:
    """``docs/reference/engines.md``."""
    engines = list(ENGINES.own.values())
    rows = "".join(map(_row, engines))
    return (
        f"{_INTRODUCTION}\n| engine | | computes on | sleeps | key | tells its load |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{rows}{''.join(map(_section, engines))}"
    )


def example(engine: Engine) -> ModelSpec:
    """A model that the engine has no problem with."""
    fields = {"source": engine.example} if isinstance(engine, ServiceEngine) else EXAMPLES[engine.name]
    return ModelSpec(ModelName("NAME"), engine.name, **fields)  # type: ignore[arg-type]  # fields by their names


def shown(engine: Engine) -> str:
    """The same, as a configuration has it."""
    model = example(engine)
    lines = ["models:", f"  {model.name}:", f"    engine: {engine.name}"]
    if model.source:
        lines.append(f"    source: {model.source}")
    if model.command:
        words = ", ".join(f'"{word}"' if "{" in word else word for word in model.command)
        lines += [f"    command: [{words}]", "    needs: {memory: 1GiB}"]
    if model.url:
        lines.append(f"    url: {model.url}")
    return "\n".join(lines) + "\n"


def _row(engine: Engine) -> str:
    launch = _launched(engine, _GPU)
    load = f"`{launch.load.path}`" if launch.load else ""
    cells = (f"[`{engine.name}`](#{engine.name})", engine.summary, _computes_on(engine), _sleeps(engine), _key(launch))
    return f"| {' | '.join((*cells, load))} |\n"


def _section(engine: Engine) -> str:
    parts = [f"\n## `{engine.name}`\n", *_notes(engine), f"```yaml\n{shown(engine)}```\n"]
    if command := _command(engine):
        parts.append(f"```text\n{command}\n```\n")
    return "\n".join((*parts, "".join(_facts(engine))))


def _notes(engine: Engine) -> list[str]:
    """What the engine's file says of it beside its first line, which the table has."""
    if isinstance(engine, ServiceEngine):
        return [_wrapped(f"A service of modelgrid: {engine.summary}.")]
    said = sys.modules[type(engine).__module__].__doc__ or ""
    first, _, rest = said.partition("\n")
    return [_wrapped(first), *([_wrapped(" ".join(rest.split()))] if rest.strip() else [])]


def _facts(engine: Engine) -> Iterator[str]:
    launch = _launched(engine, _GPU)
    for what, says in (
        ("Serves", _serves(engine)),
        ("Environment", _environment(engine)),
        ("Ready", _ready(launch)),
        ("Load", _load(launch)),
    ):
        if says:
            yield _wrapped(f"- **{what}**: {says}", "  ")


def _serves(engine: Engine) -> str:
    model = example(engine)
    usual = engine.operations(model)
    if usual == OPERATIONS:
        return "what `operations`, `endpoint` or `type` say, else everything"
    by_operations: dict[tuple[str, ...], list[str]] = {}
    for kind in dict.fromkeys((*TYPES, *_MORE_TYPES)):
        typed = dataclasses.replace(model, type=kind)
        if not engine.problems(typed):
            by_operations.setdefault(engine.operations(typed), []).append(kind)
    kinds = [f"{_names(operations)} as `type: {'`, `'.join(kinds)}`" for operations, kinds in by_operations.items()]
    return "; ".join(kinds) or _names(usual)


def _environment(engine: Engine) -> str:
    on_cpu, on_gpu = _launched(engine, _CPU), _launched(engine, _GPU)
    if not on_gpu.argv:
        return "none: the server runs already"
    told = [(place, launch) for place, launch in (("CPUs", on_cpu), ("GPUs", on_gpu)) if launch.refusal is None]
    says = [(place, _requirements(launch)) for place, launch in told]
    if len({requirements for _, requirements in says}) == 1:
        return says[0][1]
    return "; ".join(f"on {place} {requirements}" for place, requirements in says)


def _requirements(launch: Launch) -> str:
    if launch.environment is None:
        program = "llama-server" if launch.argv[0] == "{python}" else launch.argv[0]
        return f"none: `{program}` has to be on the PATH"
    wanted = (*launch.environment.requirements, *filter(None, (launch.environment.torch,)))
    return _names(wanted)


def _ready(launch: Launch) -> str:
    first = f", and `POST {launch.first_request.path}` is" if launch.first_request else ""
    return f"`GET {launch.health}` is answered{first}"


def _load(launch: Launch) -> str:
    if launch.load is None:
        return ""
    gauges = [f"running `{launch.load.running}`", f"waiting `{launch.load.waiting}`"]
    if launch.load.cache:
        gauges.append(f"share of the cache in use `{launch.load.cache}`")
    return f"`GET {launch.load.path}`: {', '.join(gauges)}"


def _command(engine: Engine) -> str:
    """What is run on a GPU, where it runs on one."""
    launch = _launched(engine, _GPU)
    line = " ".join(word.replace("{bin}/", "").replace("{python}", "python") for word in launch.argv)
    named = " ".join(f"{name}={value}" for name, value in launch.env.items() if "{port}" in value)
    line = f"{named} {line}".strip()
    return textwrap.fill(line, 116, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)


def _computes_on(engine: Engine) -> str:
    if not _launched(engine, _GPU).argv:
        return "elsewhere"
    return "GPUs" if _launched(engine, _CPU).refusal else "CPUs, GPUs"


def _sleeps(engine: Engine) -> str:
    if engine.problems(dataclasses.replace(example(engine), sleep=1)):
        return ""
    return "where it can" if _launched(engine, _CPU, sleep=1).sleep else "on GPUs"


def _key(launch: Launch) -> str:
    if launch.urls:
        return "its own"
    return "yes" if launch.key else ""


def _launched(engine: Engine, place: Place, sleep: int | None = None) -> Launch:
    model = dataclasses.replace(example(engine), sleep=sleep)
    return engine.launch(model, ReplicaId("NAME-1"), place, "WEIGHTS", "KEY")


def _names(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())

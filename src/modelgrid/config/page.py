"""The reference page of the configuration, made from the schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from modelgrid.config.fields import schema
from modelgrid.engines import ENGINES
from modelgrid.spec.units import format_bytes, format_seconds

_INTRODUCTION = """\
# Configuration

One file, `modelgrid.yaml`. It is looked for in this order: `--config FILE`, `$MODELGRID_CONFIG`, `./modelgrid.yaml`,
`~/.config/modelgrid/modelgrid.yaml` (or `$MODELGRID_HOME/modelgrid.yaml`); without one, an embedded default holds.
`modelgrid config init` writes a first one, `config check` tells everything that is wrong with it, by line and column,
`config show` prints what is in effect, and `config schema` prints a JSON schema for editors.

Edits are taken up while modelgrid serves. An edit with a mistake is reported, and the running state stays.

**Sizes** are written `16GiB`, `500MB` or as a number of bytes; **durations** `500ms`, `90s`, `15m`, `1h30m` or as a
number of seconds. Relative paths are relative to the file.

**Variables.** `${NAME}` in any value stands for the environment variable, `${NAME:-text}` for it or else the text, and
`$${` for the characters `${`. Secrets belong there: what comes from a variable that is called `…KEY`, `…TOKEN`,
`…SECRET`, `…CREDENTIALS` or `…PASSWORD` is masked in messages, in engines' logs and by `config show`. Engines don't
inherit variables that the file takes in this way. An engine that needs one says so: `env: {NAME: "${NAME}"}`. (Those
that every program may need, such as `HOME`, `PATH` and `HF_TOKEN`, are inherited all the same.)

**From outside the file.** `MODELGRID_GATEWAY__PORT=9001` sets `gateway.port`: each double underscore goes a level down.
In a model's name, whatever is no letter or digit is a `_`: `MODELGRID_MODELS__QWEN2_5_7B__SCALING__MIN=1`. A value that
starts with `[` or `{` is read as YAML. The command line wins over the environment, the environment over the file.

**A registry** of models by `type`, `service_script`, `port`, `startup_time` and `endpoint` loads as it is. Its scripts
may be relative to the folder above the file, too.

<!-- made by `python -m modelgrid.config.page`, which prints this page -->
"""

_HEADINGS = {
    "ConfigFile": "The file",
    "GatewaySection": "`gateway`",
    "TlsSection": "`gateway.tls`",
    "CorsSection": "`gateway.cors`",
    "LogSection": "`gateway.log`",
    "MachineSection": "`machine`",
    "StorageSection": "`storage`",
    "UsageSection": "`usage`",
    "ModelSection": "`models.NAME`",
    "NeedsSection": "`models.NAME.needs`",
    "ScalingSection": "`models.NAME.scaling`",
    "SloSection": "`models.NAME.scaling.slo`",
    "LimitsSection": "`models.NAME.limits`",
    "PriceSection": "`models.NAME.price`",
    "ParametersSection": "`models.NAME.parameters`",
    "RoutingSection": "`models.NAME.routing`",
    "VirtualSection": "`virtual.NAME`",
    "ChoiceSection": "`virtual.NAME.models`",
}


def reference() -> str:
    """``docs/reference/configuration.md``."""
    made = schema()
    sections = {"ConfigFile": made, **made["$defs"]}
    return _INTRODUCTION + "".join(_section(_HEADINGS[name], sections[name]) for name in _HEADINGS) + _engines()


def _engines() -> str:
    lines = ["\n## Engines", "", "| engine | |", "| --- | --- |"]
    lines += [f"| `{name}` | {engine.summary} |" for name, engine in ENGINES.own.items()]
    return "\n".join(lines) + "\n"


def _section(heading: str, section: Mapping[str, Any]) -> str:
    lines = [
        f"\n## {heading}",
        "",
        section["description"],
        "",
        "| field | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name, field in section["properties"].items():
        cells = (f"`{name}`", _type(field), _default(field), field["description"].replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _type(field: Mapping[str, Any]) -> str:
    for part in _parts(field):
        if "format" in part:
            return str(part["format"])
        if "$ref" in part:
            return "section"
        match part.get("type"):
            case "integer" | "number":
                return f"number, {part['minimum']} to {part['maximum']}" if "maximum" in part else "number"
            case "boolean":
                return "true or false"
            case "array":
                return "list"
            case "object":
                return "mapping"
            case "string" if "pattern" not in part:
                return "text"
    return "section"


def _parts(field: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield field
    for part in field.get("anyOf", ()):
        yield from _parts(part)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict | list):
        return ""
    shapes = {part.get("format") for part in _parts(field)}
    if "size" in shapes:
        return f"`{format_bytes(value).replace('.0', '').replace(' ', '')}`"
    if "duration" in shapes:
        return f"`{format_seconds(value).replace('.0', '').replace('m00s', 'm')}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())

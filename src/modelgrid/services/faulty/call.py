"""What an endpoint is given, and what it says: words that tell which process and which model answered."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from modelgrid.services.faulty.answer import Json
from modelgrid.services.faulty.form import Form
from modelgrid.services.faulty.ways import Ways


@dataclass
class Kept:
    """What is remembered from one request to the next, while the process lives."""

    responses: dict[str, Json] = field(default_factory=dict)
    inputs: dict[str, list[Json]] = field(default_factory=dict)
    videos: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request to an endpoint, read."""

    number: int
    model: str  # the name that the engine goes by
    ways: Ways
    sent: Json  # a JSON body, or the values of a form
    form: Form | None
    query: dict[str, str]
    id: str  # where the path names a thing
    kept: Kept

    @property
    def streams(self) -> bool:
        return self.sent.get("stream") in (True, "true", "True", "1")

    @property
    def mark(self) -> str:
        """Ends every id."""
        return f"{os.getpid()}-{self.number}"

    def words(self) -> list[str]:
        words = [f"pid {os.getpid()} model {self.model}", *(f" word{n}" for n in range(1, self.ways.chunks))]
        return [word.ljust(self.ways.chunk_size, ".") for word in words]

    def pieces(self, text: str) -> list[str]:
        """A text in as many pieces as an answer has."""
        step = max(1, -(-len(text) // max(1, self.ways.chunks)))
        return [text[at : at + step] for at in range(0, len(text), step)]


def now() -> int:
    return int(time.time())


def fitting(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """The simplest value that fits a JSON schema."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > 20:
        return None
    if "$ref" in schema:
        return fitting(_referred(root, schema["$ref"]), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return fitting(schema[key][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: fitting(of, root, depth + 1) for name, of in schema.get("properties", {}).items()}
    if kind == "array":
        return [fitting(schema.get("items", {}), root, depth + 1) for _ in range(schema.get("minItems", 1))]
    simple = {"string": "x" * max(1, schema.get("minLength", 1)), "boolean": True, "null": None}
    return simple[kind] if kind in simple else schema.get("minimum", 1)


def _referred(root: Any, reference: str) -> Any:
    for step in reference.removeprefix("#").strip("/").split("/"):
        root = root.get(step, {}) if step else root
    return root


@dataclass(frozen=True)
class Tool:
    """A tool that the answer calls."""

    name: str
    arguments: Json

    @property
    def text(self) -> str:
        return json.dumps(self.arguments)


def chosen_tool(tools: Any, choice: Any) -> Tool | None:
    """The tool that the caller demands, else the first: OpenAI's three spellings of one, and Anthropic's."""
    found = [tool for tool in map(_tool, tools or []) if tool is not None]
    if not found or choice == "none" or (isinstance(choice, dict) and choice.get("type") == "none"):
        return None
    wanted = choice.get("name") or choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    return next((tool for tool in found if tool.name == wanted), found[0])


def _tool(given: Any) -> Tool | None:
    function = given.get("function", given)
    if "name" not in function:
        return None  # one that the server itself would run
    schema = function.get("parameters") or function.get("input_schema") or {"type": "object"}
    return Tool(function["name"], fitting(schema))

"""A YAML text as plain values, and the place of each: line and column, or the override that it came from.

Scalars stay the text that was written (``0.90``, ``1.10``, ``yes``) and get their type from the schema, as values of
environment variables and the command line do. So arguments reach engines as they are, and one rule holds everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from modelgrid.config.problem import ConfigProblem

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"
At: TypeAlias = tuple[str | int, ...]  # the way to a value: ("models", "qwen", "args", 0)

_LONGEST_TEXT = 2**20  # characters
_LONGEST_MESSAGE = 500  # characters; a value that is quoted in one may be of any length
_MOST_VALUES = 100_000  # after anchors are expanded, which can multiply without end
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "map", "seq")}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written. `origin` names an override: ``environment MODELGRID_…`` or ``--port``."""

    line: int | None = None
    column: int | None = None
    origin: str | None = None


@dataclass(slots=True)
class Document:
    """Values with their places, and the problems found so far."""

    values: dict[str, Value] = field(default_factory=dict)
    places: dict[At, Place] = field(default_factory=dict)  # of values
    keys: dict[At, Place] = field(default_factory=dict)  # of the keys that values stand at
    problems: list[ConfigProblem] = field(default_factory=list)
    quoted: set[At] = field(default_factory=set)  # scalars that were written in quotes: texts, whatever is in them
    broken: set[At] = field(default_factory=set)  # values that couldn't be had: nothing more is said of them

    def add(self, at: At, message: str, *, of_key: bool = False) -> None:
        """Note a problem with the value at `at` (or with its key)."""
        if at in self.broken:
            return
        if len(message) > _LONGEST_MESSAGE:
            message = message[:_LONGEST_MESSAGE] + "…"
        place = self._place(at, of_key)
        self.problems.append(ConfigProblem(place.line, place.column, place.origin or dotted(at), message))

    def _place(self, at: At, of_key: bool) -> Place:
        first, second = (self.keys, self.places) if of_key else (self.places, self.keys)
        found = first.get(at) or second.get(at)
        while found is None and at:  # what is missing is shown at what it is missing from
            at = at[:-1]
            found = self.keys.get(at) or self.places.get(at)
        return found or Place(1, 1)


def dotted(at: At) -> str:
    """``models.qwen.args[0]``."""
    text = ""
    for step in at:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_document(text: str) -> Document:
    """The values of a YAML text. What can't be read is a problem of the document, not an exception."""
    document = Document()
    if len(text) > _LONGEST_TEXT:
        document.add((), f"is longer than {_LONGEST_TEXT} characters: this is not a configuration")
        return document
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = _Reader(document).read(root) if root is not None else {}
    except yaml.MarkedYAMLError as error:
        document.problems.append(_syntax_problem(error))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        document.problems.append(ConfigProblem(line, column, "", f"the character {_char(error)} can't stand here"))
    except RecursionError:
        document.add((), "is nested too deep")
    else:
        if isinstance(values, dict):
            document.values = values
        elif values is not None:
            document.add((), "a configuration is a mapping: it starts with a field such as `models:`")
    return document


class _Reader:
    """Turns nodes into values, and writes down places and problems as it goes."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: set[int] = set()  # nodes being read: one that is met again holds itself
        self._count = 0

    def read(self, node: yaml.Node, at: At = ()) -> Value:
        self._document.places.setdefault(at, _place(node))
        self._count += 1
        if self._count == _MOST_VALUES:
            self._document.add(at, f"has more than {_MOST_VALUES} values, counted with anchors expanded")
        if self._count >= _MOST_VALUES:
            return None
        if id(node) in self._open:
            self._document.add(at, "refers to itself")
            return None
        if node.tag not in _PLAIN_TAGS:
            self._document.add(at, f"YAML tags such as {node.tag.removeprefix(_TAG)!r} have no meaning here")
            return None
        self._open.add(id(node))
        try:
            return self._read_content(node, at)
        finally:
            self._open.remove(id(node))

    def _read_content(self, node: yaml.Node, at: At) -> Value:
        if isinstance(node, yaml.MappingNode):
            return {
                key: self._read_entry(key_node, value, (*at, key)) for key, key_node, value in self._pairs(node, at)
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*at, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.style:  # a quote, | or >
            self._document.quoted.add(at)
        return None if node.tag == _TAG + "null" else str(node.value)

    def _read_entry(self, key: yaml.Node, value: yaml.Node, at: At) -> Value:
        self._document.keys[at] = _place(key)
        return self.read(value, at)

    def _pairs(self, node: yaml.MappingNode, at: At) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """Keys once each: those written here, then those of ``<<``."""
        found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        merged: list[yaml.MappingNode] = []
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged += self._merged(value, at)
            elif not isinstance(key, yaml.ScalarNode):
                place = _place(key)
                self._document.problems.append(
                    ConfigProblem(place.line, place.column, dotted(at), "a name here is a plain word or text")
                )
            elif key.value in found:
                self._add_twice((*at, key.value), key, found[key.value][1])
            else:
                found[key.value] = (key.value, key, value)
        for other in merged:
            if id(other) in self._open:
                self._document.add(at, "refers to itself")
                continue
            self._open.add(id(other))
            for pair in self._pairs(other, at):
                found.setdefault(pair[0], pair)
            self._open.remove(id(other))
        return list(found.values())

    def _merged(self, node: yaml.Node, at: At) -> list[yaml.MappingNode]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        mappings = [item for item in nodes if isinstance(item, yaml.MappingNode)]
        if len(mappings) < len(nodes):
            self._document.add((*at, "<<"), "merges mappings only: write <<: *NAME")
        return mappings

    def _add_twice(self, at: At, key: yaml.Node, first: yaml.Node) -> None:
        here, there = _place(key), _place(first)
        if len(at) == 2 and at[0] == "models":
            message = f"two models of one name: {at[1]!r} is on line {there.line} and on line {here.line}; rename one"
        else:
            message = f"is given twice: on line {there.line} and on line {here.line}; remove one"
        self._document.problems.append(ConfigProblem(here.line, here.column, dotted(at), message))


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax_problem(error: yaml.MarkedYAMLError) -> ConfigProblem:
    mark = error.problem_mark or error.context_mark
    said = " ".join(part for part in (error.context, error.problem) if part)
    step = "; indent with spaces, not with tabs" if "'\\t'" in said else ""
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return ConfigProblem(line, column, "", f"this is not YAML: {said}{step}")


def _char(error: yaml.reader.ReaderError) -> str:
    return f"U+{ord(error.character) if isinstance(error.character, str) else int(error.character):04X}"

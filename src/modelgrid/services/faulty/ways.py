"""The ways to answer: one table, each row an argument of the process and a key of one request's ``x-faulty`` header."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

HEADER = "x-faulty"
Parse = Callable[[str], Any]


class UnknownWay(ValueError):
    """A header or argument that asks for what is not in the table."""


def size(text: str) -> int:
    """Bytes from ``500MiB``, ``1GiB``, ``64KiB`` or a plain number."""
    match = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size (write for example 500MiB)")
    return int(match[1]) << {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[match[2]]


def one_of(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}")
        return text

    return parse


def place(text: str) -> str:
    """Where an answer is cut: a name, or a number of bytes of its body."""
    return str(int(text)) if text.isdecimal() else one_of("before", "half-head", "head", "middle")(text)


def statuses(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+"))


def lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(" + "))


def flag(text: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


def way(default: Any, metavar: str, explained: str, parse: Parse, *, is_fault: bool = True) -> Any:
    """A row: what it is by default, how it is shown and read. What is no fault holds for every request."""
    row = {"metavar": metavar, "help": explained, "parse": parse, "is_fault": is_fault}
    return field(default=default, metadata=row)


@dataclass(frozen=True, slots=True)
class Ways:
    """How one request is answered. Times are in seconds."""

    # fmt: off
    chunks: int = way(4, "N", "words of an answer, each an event of a stream", int, is_fault=False)
    chunk_size: int = way(0, "SIZE", "pad each word to this size", size, is_fault=False)
    delay: float = way(0.0, "S", "wait before each answer", float, is_fault=False)
    body_delay: float = way(0.0, "S", "wait between the head and the body", float, is_fault=False)
    chunk_delay: float = way(0.0, "S", "wait before each event of a stream", float, is_fault=False)
    echo: bool = way(False, "", "answer with what was received", flag, is_fault=False)
    first: int | None = way(None, "N", "only for so many requests do the faults hold", int)
    every: int | None = way(None, "K", "only for every k-th request do they hold", int)
    after: int = way(0, "N", "only after so many requests do they begin", int)
    id: str = way("", "NAME", "tells apart headers that are else the same: each is counted by itself", str)
    status: int | None = way(None, "CODE", "answer this status, with an error", int)
    retry_after: str = way("", "TEXT", "and this Retry-After", str)
    headers: tuple[str, ...] = way((), "LINES", "more header lines, joined by « + »", lines)
    interim: tuple[int, ...] = way((), "CODES", "1xx answers before the answer: 103+102", statuses)
    hang: bool = way(False, "", "never answer", flag)
    framing: str = way("", "HOW", "sized, chunked or close: how the end of the body is told",
                       one_of("sized", "chunked", "close"))
    http10: bool = way(False, "", "answer as HTTP/1.0 does", flag)
    close: bool = way(False, "", "answer Connection: close, and close", flag)
    trailers: tuple[str, ...] = way((), "LINES", "answer in chunks, with trailers, joined by « + »", lines)
    byte_delay: float = way(0.0, "S", "write byte by byte, and wait after each", float)
    cut: str = way("", "WHERE", "end early: before, half-head, head, middle, or after so many bytes of the body", place)
    cut_events: int | None = way(None, "K", "end a stream early, after so many events", int)
    cut_by: str = way("close", "HOW", "close, reset, crash, error (an error event, then a proper end) or end",
                      one_of("close", "reset", "crash", "error", "end"))
    cut_body: bool = way(False, "", "close the connection in the middle of an answer that is no stream", flag)
    crash_mid_stream: int | None = way(None, "K", "die after K events of a stream (2)", int)
    garbage: str = way("", "KIND", "bytes that aren't HTTP (http), aren't JSON (json), or break the rules: chunk, "
                       "lengths, header, event", one_of("http", "json", "chunk", "lengths", "header", "event"))
    huge_head: int = way(0, "SIZE", "this much more of header lines", size)
    endless: bool = way(False, "", "a body without an end", flag)
    read: str = way("whole", "HOW", "the request's body: whole, late (after the answer) or never",
                    one_of("whole", "late", "never"))
    read_delay: float = way(0.0, "S", "wait before each piece of the request's body", float)
    read_size: int = way(1 << 16, "SIZE", "of which each has this size", size)
    expect: str = way("continue", "HOW", "to Expect: 100-continue say continue, ignore it, or refuse",
                      one_of("continue", "ignore", "refuse"))
    idle_close: float | None = way(None, "S", "then close the connection when it is idle for so long", float)
    stale: bool = way(False, "", "then close the connection at its next request, without an answer", flag)
    # fmt: on

    def plain(self) -> Ways:
        """Without the faults."""
        harmless: dict[str, Any] = {row.name: row.default for row in fields(self) if row.metadata["is_fault"]}
        return replace(self, **harmless)

    def at(self, number: int) -> Ways:
        """What holds for request `number`."""
        past = number - self.after
        if past > 0 and self.first is None and self.every is None:
            return self
        is_due = past > 0 and (self.first is None or past <= self.first)
        return self if is_due and (self.every is None or past % self.every == 0) else self.plain()


NONE_OF_THEM = Ways()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Each row as an argument."""
    for row in fields(Ways):
        shown: dict[str, Any] = {"dest": row.name, "default": argparse.SUPPRESS, "help": row.metadata["help"]}
        if row.metadata["parse"] is flag:
            parser.add_argument(argument(row.name), action="store_true", **shown)
        else:
            more: dict[str, Any] = {"nargs": "?", "const": 2} if row.name == "crash_mid_stream" else {}
            kind = row.metadata["parse"]
            parser.add_argument(argument(row.name), type=kind, metavar=row.metadata["metavar"], **shown, **more)


def argument(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def from_arguments(options: argparse.Namespace) -> Ways:
    return Ways(**{row.name: getattr(options, row.name) for row in fields(Ways) if hasattr(options, row.name)})


def from_header(text: str, base: Ways) -> Ways:
    """`base`, changed for one request: ``{"cut": "head", "trailers": ["a: b"]}`` or ``cut=head, close``."""
    parse = {row.name: row.metadata["parse"] for row in fields(Ways)}
    changes = {}
    for key, value in _pairs(text).items():
        name = key.replace("-", "_")
        if name not in parse:
            raise UnknownWay(f"cannot read {HEADER}: there is no way {key!r}")
        try:
            changes[name] = parse[name](_text(value))
        except (ValueError, KeyError, argparse.ArgumentTypeError) as error:
            raise UnknownWay(f"cannot read {HEADER}: {key} can't be {value!r} ({error})") from None
    return replace(base, **changes)


def _pairs(text: str) -> Mapping[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise UnknownWay(f"cannot read {HEADER}: not JSON ({error})") from None
    parts = (part.strip().partition("=") for part in re.split("[,;]", text) if part.strip())
    return {key.strip(): value.strip() if equals else "true" for key, equals, value in parts}


def _text(value: Any) -> str:
    return " + ".join(str(part) for part in value) if isinstance(value, list) else str(value)

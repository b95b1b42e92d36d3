"""A request's body: find the model that it names, and put another name in its place. Every other byte stays."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec


class BodyError(Exception):
    """The body can't be used; the text says where and why."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class _Body(msgspec.Struct):
    model: str | None = None


_decoder: Final = msgspec.json.Decoder(_Body)
_EXAMPLE: Final = '{"model": "NAME", …}'


def read_model(body: bytes) -> str:
    """The model that a JSON body names. Raises BodyError."""
    try:
        model = _decoder.decode(body).model
    except msgspec.ValidationError as error:
        if "$.model" in str(error):
            raise BodyError(f"cannot read the request's model: {error} (send a string)", "model") from None
        raise BodyError(f"cannot read the request's body: {error} (send an object like {_EXAMPLE})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyError(f"cannot read the request's body: {error}{_place(body, str(error))}") from None
    except RecursionError:
        raise BodyError("cannot read the request's body: its JSON is nested too deeply") from None
    if not model:
        raise BodyError(f"cannot tell which model is asked for: the body names none (send {_EXAMPLE})", "model")
    return model


# The body was read before, so it is a JSON object and its top-level models are strings. That leaves three tokens to
# tell apart: strings (which may hold brackets), brackets, and the colon that makes a string a key.
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_COLON: Final = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+")


def splice_model(body: bytes, model: str) -> bytes:
    """`body` with `model` as the value of every top-level ``"model"``; the body must have passed `read_model`."""
    value = msgspec.json.encode(model)
    parts = []
    kept = depth = at = 0
    while token := _TOKEN.search(body, at):
        text, at = token[0], token.end()
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and (colon := _COLON.match(body, at)):
            at = colon.end()
            if _is_model(text) and (old := _TOKEN.match(body, at)):
                parts += [body[kept:at], value]
                kept = at = old.end()
    return b"".join([*parts, body[kept:]])


def _is_model(key: bytes) -> bool:
    return key == b'"model"' or (b"\\" in key and json.loads(key) == "model")


def _place(body: bytes, message: str) -> str:
    """Where byte n of a message like "… (byte n)" stands, as an editor shows it."""
    found = re.search(r"\(byte (\d+)\)", message)
    if not found:
        return ""
    before = body[: int(found[1])]
    return f", line {before.count(10) + 1} column {len(before) - before.rfind(10)}"

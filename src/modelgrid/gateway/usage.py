"""What an answer says of what it took: read where it stands, and nothing else of the answer is looked at."""

from __future__ import annotations

import re
from typing import Final

import msgspec


class Usage(msgspec.Struct, gc=False):
    """Tokens. `cached` are part of `input`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    is_estimated: bool = False  # counted here, since the engine didn't tell
    media_s: float = 0.0  # seconds of sound, where they are counted instead


def read_usage(body: bytes) -> Usage | None:
    """What a whole JSON answer says; None if it says nothing."""
    at = body.rfind(b'"usage"')
    if at < 0:
        return None
    # A string can't hold that text but at its end. If what follows is the rest of an object, then it is a member of
    # the answer itself: one of an inner object would leave a bracket too many.
    try:
        found = _whole(b"{" + body[at:]).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _closely(body)
    return None if found is None else found.in_all()


def _closely(body: bytes) -> _Tokens | None:
    try:
        return _whole(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def usage_of_event(event: bytes) -> Usage | None:
    """OpenAI's and Anthropic's events hold it; Anthropic's first and those of responses hold what holds it."""
    if not event:
        return None
    try:
        read = _event(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for holder in (read, read.message, read.response):
        if holder is not None and holder.usage is not None:
            return holder.usage.in_all()
    return None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Tokens(msgspec.Struct, gc=False):
    """As OpenAI, Anthropic and those who follow them write it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    seconds: float | None = None
    cache_read_input_tokens: int | None = None  # Anthropic's, which are no part of its input_tokens
    cache_creation_input_tokens: int | None = None

    def in_all(self) -> Usage | None:
        """None if it counts something else."""
        prompt, output = self.prompt_tokens, self.completion_tokens or self.output_tokens or 0
        if prompt is None and self.input_tokens is None:
            if self.total_tokens is None:
                seconds = self.seconds or 0.0
                return Usage(0, output, media_s=seconds) if output or seconds else None
            prompt = self.total_tokens - output
        if prompt is not None:
            details = self.prompt_tokens_details
            return Usage(prompt, output, 0 if details is None else details.cached_tokens or 0)
        details = self.input_tokens_details
        prompt, cached = self.input_tokens or 0, self.cache_read_input_tokens or 0
        if details is not None and details.cached_tokens is not None:
            return Usage(prompt, output, details.cached_tokens)
        return Usage(prompt + cached + (self.cache_creation_input_tokens or 0), output, cached)


class _Whole(msgspec.Struct, gc=False):
    usage: _Tokens | None = None


class _Event(msgspec.Struct, gc=False):
    usage: _Tokens | None = None
    message: _Whole | None = None
    response: _Whole | None = None


_whole: Final = msgspec.json.Decoder(_Whole).decode
_event: Final = msgspec.json.Decoder(_Event).decode


# Where nobody tells.

_BYTES_A_TOKEN: Final = 4  # of English; other languages have fewer
_BASE64: Final = re.compile(rb";base64,[A-Za-z0-9+/=_\\-]*")
_SAID: Final = re.compile(rb'"(?:content|text|reasoning_content)"[ \t]*:[ \t]*"((?:[^"\\]|\\.)*+)"')
_LASTS: Final = re.compile(rb'"(?:duration|seconds)"[ \t]*:[ \t]*"?([0-9]{1,9}(?:\.[0-9]{1,9})?)')


def guess_input(body: bytes) -> int:
    """Tokens of a request, by its length. Pictures and sounds in it are left out: they aren't read byte by byte."""
    length = len(body)
    if b";base64," in body:
        length -= sum(found.end() - found.start() for found in _BASE64.finditer(body))
    return -(-length // _BYTES_A_TOKEN)


def guess_output(tail: bytes, size: int) -> int:
    """Tokens of an answer, by the length of what is said in it; all is counted of what came before its `tail`."""
    length = size - len(tail) + sum(found.end(1) - found.start(1) for found in _SAID.finditer(tail))
    return -(-length // _BYTES_A_TOKEN)


def read_media_s(body: bytes) -> float:
    """Seconds of sound or film that an answer says it is about, beside its usage."""
    found = _LASTS.search(body)
    return 0.0 if found is None else float(found[1])

"""Which requests belong together: the key by which the same conversation finds the same replica again. Pure.

A `session` is what the caller says it is, in a header or a field of the body. A `prefix` is the beginning of a
conversation, which each of its turns repeats, and whose cache a replica holds. A key leads to a replica by rendezvous
(`modelgrid.gateway.choose`): nothing is remembered, so all workers agree, and a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from modelgrid.spec import Routing
from modelgrid.spec.operations import CHAT, COMPLETIONS, COUNT_TOKENS, INFILL, MESSAGES, RESPONSES

PRIME: Final = (1 << 61) - 1  # keys and seeds are below
SAMPLE_BYTES: Final = 1024  # of a long text its two ends and its length stand for it


class Affinity(Protocol):
    """A model's policy, made once a table."""

    @property
    def headers(self) -> frozenset[bytes]:
        """The request headers that `key` looks at, in lower case."""
        ...

    def key(self, operation: str, headers: Mapping[bytes, bytes], body: bytes) -> int | None:
        """What a request is known by, or None: then it goes wherever least is in flight. `body` is JSON as it was
        sent, or empty where it can't be read. Raises nothing, whatever it is."""
        ...


def affinity(routing: Routing) -> Affinity | None:
    """The policy that a route asks for; None: least outstanding, which looks at nothing of a request."""
    if routing.policy == "session":
        return _Session(routing.session)
    return _Prefix() if routing.policy == "prefix" else None


def digest(data: bytes) -> int:
    """A number from 1 to PRIME - 1, the same in all processes, without a pattern."""
    return int.from_bytes(blake2b(data, digest_size=8).digest()) % (PRIME - 1) + 1


class _Session:
    """The first place where something stands."""

    def __init__(self, places: tuple[str, ...]) -> None:
        self._places: list[bytes | list[str]] = []  # a header's name, or a path into the body
        for place in places:
            kind, _, name = place.partition(":")
            self._places.append(name.lower().encode("latin-1", "replace") if kind == "header" else name.split("."))
        self.headers = frozenset(place for place in self._places if isinstance(place, bytes))

    def key(self, operation: str, headers: Mapping[bytes, bytes], body: bytes) -> int | None:  # noqa: ARG002  the seam
        fields: dict[str, msgspec.Raw] | None = None
        for place in self._places:
            if isinstance(place, bytes):
                found = headers.get(place)
            else:
                if fields is None:
                    fields = _read_fields(body)
                found = _field(fields, place)
            if found:
                return digest(found)
        return None


class _Prefix:
    """The beginning of a conversation."""

    headers: frozenset[bytes] = frozenset()

    def key(self, operation: str, headers: Mapping[bytes, bytes], body: bytes) -> int | None:  # noqa: ARG002  the seam
        read = _BEGINNINGS.get(operation)
        if read is None or not body:
            return None
        try:
            beginning = b"\n".join(read(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # the engine will say what is wrong with it
        return digest(beginning) if beginning else None


_NOTHING: Final = msgspec.Raw()


class _Chat(msgspec.Struct):
    prompt_cache_key: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING


class _Messages(msgspec.Struct):
    system: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING


class _Responses(msgspec.Struct):
    prompt_cache_key: msgspec.Raw = _NOTHING
    conversation: msgspec.Raw = _NOTHING
    instructions: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING


class _Completions(msgspec.Struct):
    prompt_cache_key: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING


class _Infill(msgspec.Struct):
    input_prefix: msgspec.Raw = _NOTHING


class _Message(msgspec.Struct):
    role: msgspec.Raw = _NOTHING
    content: msgspec.Raw = _NOTHING


_chat: Final = msgspec.json.Decoder(_Chat)
_messages: Final = msgspec.json.Decoder(_Messages)
_responses: Final = msgspec.json.Decoder(_Responses)
_completions: Final = msgspec.json.Decoder(_Completions)
_infill: Final = msgspec.json.Decoder(_Infill)
_message: Final = msgspec.json.Decoder(_Message)
_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_id: Final = msgspec.json.Decoder(str | int)


def _begin_chat(body: bytes) -> Iterator[bytes]:
    chat = _chat.decode(body)
    if _is_sent(chat.prompt_cache_key):
        yield bytes(chat.prompt_cache_key)
    else:
        yield from _opening(chat.messages)


def _begin_messages(body: bytes) -> Iterator[bytes]:
    request = _messages.decode(body)
    if _is_sent(request.system):
        yield from _content(request.system)
    yield from _opening(request.messages)


def _begin_responses(body: bytes) -> Iterator[bytes]:
    request = _responses.decode(body)
    for named in (request.prompt_cache_key, request.conversation):
        if _is_sent(named):
            yield bytes(named)
            return
    if _is_sent(request.instructions):
        yield _sample(request.instructions)
    yield from _opening(request.input)


def _begin_completions(body: bytes) -> Iterator[bytes]:
    request = _completions.decode(body)
    if _is_sent(request.prompt_cache_key):
        yield bytes(request.prompt_cache_key)
    elif _is_sent(request.prompt):
        yield bytes(memoryview(request.prompt)[:SAMPLE_BYTES])  # its end is what each turn adds to


def _begin_infill(body: bytes) -> Iterator[bytes]:
    prefix = _infill.decode(body).input_prefix
    if _is_sent(prefix):
        yield bytes(memoryview(prefix)[:SAMPLE_BYTES])


_BEGINNINGS: Final[Mapping[str, Callable[[bytes], Iterator[bytes]]]] = {
    CHAT: _begin_chat,
    COMPLETIONS: _begin_completions,
    RESPONSES: _begin_responses,
    MESSAGES: _begin_messages,
    COUNT_TOKENS: _begin_messages,
    INFILL: _begin_infill,
}


def _opening(messages: msgspec.Raw) -> Iterator[bytes]:
    """A list of messages up to the first one of the user; where there is none, the first. Or a text."""
    if not _is_list(messages):
        if _is_sent(messages):
            yield _sample(messages)
        return
    opening: list[_Message] = []
    for raw in _list.decode(messages):
        message = _message.decode(raw)
        opening.append(message)
        if bytes(message.role) == b'"user"':
            break
    else:
        del opening[1:]  # what is said later differs from turn to turn
    for message in opening:
        yield bytes(message.role)
        yield from _content(message.content)


def _content(content: msgspec.Raw) -> Iterator[bytes]:
    """A text, or a list of parts. A text is the same in both forms; where clients have marked what is to be cached
    differs from turn to turn."""
    if not _is_list(content):
        yield _sample(content)
        return
    for part in _parts.decode(content):
        text = part.get("text")
        if text is not None:
            yield _sample(text)
        else:
            for name, value in part.items():
                if name != "cache_control":
                    yield _sample(value)


def _is_sent(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:5]) not in (b"", b"null", b'""')


def _is_list(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"["


def _sample(value: msgspec.Raw) -> bytes:
    text = memoryview(value)
    if len(text) <= 2 * SAMPLE_BYTES:
        return bytes(text)
    return b"%b%b%d" % (bytes(text[:SAMPLE_BYTES]), bytes(text[-SAMPLE_BYTES:]), len(text))


def _read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _field(fields: dict[str, msgspec.Raw], path: list[str]) -> bytes | None:
    """A string (or a number) in the body; None where there is none."""
    *objects, name = path
    try:
        for outer in objects:
            fields = _fields.decode(fields[outer])
        return str(_id.decode(fields[name])).encode("utf-8", "surrogatepass")
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None

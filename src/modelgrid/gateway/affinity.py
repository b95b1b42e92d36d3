"""Which requests belong together: the key by which the same conversation finds the same replica again. Pure.

A `session` is what the caller says it is, in a header or a field of the body. A `prefix` is the beginning of a
conversation, which each of its turns repeats, and whose cache a replica holds. A key leads to a replica by rendezvous
(`modelgrid.gateway.choose`): nothing is remembered, so all workers agree, and a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
_EMPTY: Final = (b"", b"null", b'""', b"[]")
_USER: Final = b'"user"'
_BRACKET: Final = ord("[")


class _Message(msgspec.Struct):
    role: msgspec.Raw = _NOTHING
    content: msgspec.Raw = _NOTHING


class _Chat(msgspec.Struct):
    prompt_cache_key: msgspec.Raw = _NOTHING
    messages: list[_Message] = []


class _Messages(msgspec.Struct):
    system: msgspec.Raw = _NOTHING
    messages: list[_Message] = []


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


_chat: Final = msgspec.json.Decoder(_Chat)
_messages: Final = msgspec.json.Decoder(_Messages)
_responses: Final = msgspec.json.Decoder(_Responses)
_completions: Final = msgspec.json.Decoder(_Completions)
_infill: Final = msgspec.json.Decoder(_Infill)
_items: Final = msgspec.json.Decoder(list[_Message])
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_id: Final = msgspec.json.Decoder(str | int)


def _begin_chat(body: bytes) -> list[bytes]:
    chat = _chat.decode(body)
    return _named(chat.prompt_cache_key) or _opening(chat.messages)


def _begin_messages(body: bytes) -> list[bytes]:
    request = _messages.decode(body)
    return _content(request.system) + _opening(request.messages)


def _begin_responses(body: bytes) -> list[bytes]:
    request = _responses.decode(body)
    named = _named(request.prompt_cache_key) or _named(request.conversation)
    if named:
        return named
    is_list = bytes(memoryview(request.input)[:1]) == b"["
    asked = _opening(_items.decode(request.input)) if is_list else _content(request.input)
    return _content(request.instructions) + asked


def _begin_completions(body: bytes) -> list[bytes]:
    request = _completions.decode(body)
    return _named(request.prompt_cache_key) or _start(request.prompt)


def _begin_infill(body: bytes) -> list[bytes]:
    return _start(_infill.decode(body).input_prefix)


_BEGINNINGS: Final[Mapping[str, Callable[[bytes], list[bytes]]]] = {
    CHAT: _begin_chat,
    COMPLETIONS: _begin_completions,
    RESPONSES: _begin_responses,
    MESSAGES: _begin_messages,
    COUNT_TOKENS: _begin_messages,
    INFILL: _begin_infill,
}


def _opening(messages: list[_Message]) -> list[bytes]:
    """The messages up to the first one of the user; where there is none, the first."""
    texts: list[bytes] = []
    first = 0
    for message in messages:
        role = bytes(message.role)
        texts.append(role)
        texts += _content(message.content)
        if role == _USER:
            return texts
        first = first or len(texts)
    return texts[:first]  # what is said later differs from turn to turn


def _content(content: msgspec.Raw) -> list[bytes]:
    """A text, or a list of parts. A text is the same in both forms; where clients have marked what is to be cached
    differs from turn to turn."""
    text = memoryview(content)
    if not text or text[0] != _BRACKET:
        return [] if bytes(text[:5]) in _EMPTY else [_sample(text)]
    texts: list[bytes] = []
    for part in _parts.decode(content):
        said = part.get("text")
        if said is not None:
            texts.append(_sample(memoryview(said)))
        else:
            texts += [_sample(memoryview(value)) for name, value in part.items() if name != "cache_control"]
    return texts


def _named(value: msgspec.Raw) -> list[bytes]:
    name = bytes(value)
    return [] if name in _EMPTY else [name]


def _start(value: msgspec.Raw) -> list[bytes]:
    """Of a text whose end grows with each turn."""
    text = bytes(memoryview(value)[:SAMPLE_BYTES])
    return [] if text in _EMPTY else [text]


def _sample(text: memoryview[int]) -> bytes:
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

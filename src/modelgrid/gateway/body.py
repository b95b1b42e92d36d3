"""A request's body: read what routing needs of it, and edit its top-level fields. Every other byte stays as it came."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from modelgrid.spec import Parameters

TOKEN_LIMIT: Final = 1_000_000  # strings and brackets that an edit steps over by itself: a fifth of a second
CHANGE_LIMIT: Final = 1_000  # a body that names a field more often than that is no mistake
_SEEN_LIMIT_BYTES: Final = 512
LAX_LIMIT_BYTES: Final = 1 << 20  # JSON as Python's parser takes it is read at the cost of holding every value


class BodyError(Exception):
    """The body can't be used; the text says where and why."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


_TRUE: Final = Raw(b"true")
_FALSE: Final = Raw(b"false")
_EXAMPLE: Final = '{"model": "NAME", …}'


class Asked(msgspec.Struct, gc=False):
    """What routing needs of a body."""

    model: str | None = None  # None or empty: it names none
    stream: Raw = _FALSE

    @property
    def is_stream(self) -> bool:
        """The caller wants events."""
        return self.stream == _TRUE


_asked: Final = msgspec.json.Decoder(Asked).decode


def read(body: bytes) -> Asked:
    """What a JSON body asks for, of which nothing else is kept. Raises BodyError if it isn't a JSON object."""
    try:
        return _asked(body)
    except msgspec.ValidationError as error:
        raise _of_wrong_type(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if asked := _read_laxly(body):
            return asked
        raise BodyError(f"cannot read the request's body: {error}{_place(body, str(error))}") from None
    except RecursionError:
        raise BodyError("cannot read the request's body: its JSON is nested too deeply") from None


def _of_wrong_type(error: Exception) -> BodyError:
    if "$.model" in str(error):
        return BodyError(f"cannot read the request's model: {error} (send a string)", "model")
    return BodyError(f"cannot read the request's body: {error} (send an object like {_EXAMPLE})")


def _read_laxly(body: bytes) -> Asked | None:
    """NaN, Infinity and lone surrogates, which engines in Python take and clients in JavaScript and Python send."""
    if len(body) > LAX_LIMIT_BYTES:
        return None
    try:
        fields = json.loads(body.decode())
        if not isinstance(fields, dict):
            return None
        asked = msgspec.convert({"model": fields.get("model")}, Asked)
        (asked.model or "").encode()  # a name that can't be written isn't one
    except msgspec.ValidationError as error:
        raise _of_wrong_type(error) from None
    except (ValueError, RecursionError):
        return None
    asked.stream = _TRUE if fields.get("stream") is True else _FALSE
    return asked


def _place(body: bytes, message: str) -> str:
    """Where byte n of a message like "… (byte n)" stands, as an editor shows it."""
    found = re.search(r"\(byte (\d+)\)", message)
    if not found:
        return ""
    before = body[: int(found[1])]
    return f", line {before.count(10) + 1} column {len(before) - before.rfind(10)}"


class Edits:
    """What a model does to the bodies that are sent to it. Made once, applied to each."""

    __slots__ = ("_added", "_fields", "_instead", "_is_plain", "_model", "_none_sent", "_others", "_seen", "_sent")

    def __init__(self, served_model: str | None, *parameters: Parameters) -> None:
        """`served_model` is put in as the model; None leaves the model as it is. `parameters` follow each other."""
        names = dict.fromkeys(name for each in parameters for name in _names(each))
        self._fields = {name.encode(): _Field(name, parameters) for name in names}
        self._model: bytes | None = None
        if served_model is not None:
            self._model = msgspec.json.encode(served_model)
            self._fields[b"model"] = _Field("model", (Parameters(set={"model": self._model.decode()}),))
            names.pop("model", None)
        self._is_plain = all(_PLAIN.fullmatch(name) for name in names)
        self._others = [
            (f"field{place}", b'"%b"' % name.encode(), self._fields[name.encode()]) for place, name in enumerate(names)
        ]
        self._added = b"".join(field.addition for _, _, field in self._others)
        self._sent: Callable[[bytes], msgspec.Struct] | None = None
        self._none_sent: msgspec.Struct | None = None
        if names and self._is_plain:
            rename = {attribute: name for (attribute, _, _), name in zip(self._others, names, strict=True)}
            sent = msgspec.defstruct("_Sent", [(name, Raw, Raw()) for name in rename], rename=rename, gc=False)
            self._sent, self._none_sent = msgspec.json.Decoder(sent).decode, sent()
        self._seen = self._instead = b"" if self._model is None else b'"model":%b' % self._model

    def apply(self, body: bytes, *, names_model: bool = True) -> bytes:
        """`body` edited; itself if nothing is to be changed. Raises BodyError.

        It must have passed `read`; `names_model` says whether that found a model.
        """
        if self._model is None or not names_model or not self._is_plain:
            return self._step_through(body)
        if self._others:
            return self._splice(body)
        # The body names a model at its top level. If that key stands there only once, and no escape can hide another,
        # then this one is it. Callers write one name the same way again and again: look for that first.
        at = body.find(self._seen)
        if at < 0 or body.rfind(b'"model"') != at or (at > 7 and body.find(b'"model"', 0, at) >= 0):
            return self._splice(body)
        if 92 in body and body.rfind(b"\\u00") >= 0 and _may_hide_keys(body):
            return self._step_through(body)
        if self._instead is self._seen:
            return body
        return body.replace(self._seen, self._instead, 1)

    def _splice(self, body: bytes) -> bytes:
        """Fields that stand in the body once are found by their keys; what is harder is stepped through."""
        model = self._model
        at = body.find(b'"model"')
        if model is None or at < 0 or body.rfind(b'"model"') != at or (92 in body and _may_hide_keys(body)):
            return self._step_through(body)
        start = body.find(b'"', at + 7)
        end = body.find(b'"', start + 1) + 1
        if 92 in (old := body[start:end]):
            return self._step_through(body)
        changes = [] if old == model else [(start, end, model)]
        if self._others and not self._splice_others(body, changes):
            return self._step_through(body)
        if end - at < _SEEN_LIMIT_BYTES:
            self._seen = self._instead = body[at:end]
            if old != model:
                self._instead = body[at:start] + model
        if not changes:
            return body
        changes.sort()
        view, kept = memoryview(body), 0
        pieces: list[bytes | memoryview] = []
        for start, end, new in changes:
            if start < kept:  # the last ones are stripped
                return self._step_through(body)
            pieces += (view[kept:start], new)
            kept = end
        pieces.append(view[kept:])
        return b"".join(pieces)

    def _splice_others(self, body: bytes, changes: list[tuple[int, int, bytes]]) -> bool:
        """Add to `changes`; False if it takes a closer look."""
        assert self._sent is not None
        try:
            sent = self._sent(body)
        except msgspec.DecodeError:  # it was read laxly
            return False
        added = self._added
        if sent != self._none_sent:
            added = b""
            for attribute, key, field in self._others:
                if not (raw := getattr(sent, attribute)):
                    added += field.addition
                    continue
                at = body.find(key)
                if body.rfind(key) != at:
                    return False
                value = bytes(raw)
                new = field.instead_of(value)
                if new is None:
                    continue
                start = body.find(value, at + len(key))  # between them is a colon
                end = start + len(value)
                if field.is_stripped:
                    comma = _COMMA.match(body, end)
                    if comma is not None:
                        start, end = at, comma.end()
                    else:  # it is the last one
                        start = body.rindex(b",", 0, at)
                changes.append((start, end, new))
        if added:
            close = body.rfind(b"}")
            changes.append((close, close, added))
        return True

    def _step_through(self, body: bytes) -> bytes:
        """The same, from member to member."""
        fields = self._fields
        members = _Members(body)
        sent = set()
        pieces: list[bytes | memoryview] = []
        copied = 0  # up to here in `pieces`
        stripped: int | None = None  # since here, to the end of the member before
        kept_end: int | None = None  # of the last member that stays
        before_end = 0
        while members.step():
            field = fields.get(members.key)
            if field is not None:
                sent.add(members.key)
            if field is not None and field.is_stripped:
                stripped = members.start if stripped is None else stripped
            else:
                if stripped is not None:
                    pieces.append(members.view[copied:stripped])
                    copied, stripped = members.start, None
                kept_end = members.end
                if field is not None and (new := field.instead_of(members.value())) is not None:
                    pieces += (members.view[copied : members.value_start], new)
                    copied = members.end
            before_end = members.end
            if len(pieces) > 2 * CHANGE_LIMIT:
                raise BodyError(
                    f"cannot edit the request's body: more than {CHANGE_LIMIT:,} of its fields are the same"
                )
        place = kept_end if kept_end is not None else stripped if stripped is not None else members.opening
        added = [field.addition for name, field in fields.items() if field.addition and name not in sent]
        if not pieces and not added and stripped is None:
            return body
        pieces.append(members.view[copied:place])
        if added:
            pieces.append(b"".join(added)[kept_end is None :])
        pieces.append(members.view[place if stripped is None else before_end :])
        return b"".join(pieces)


def _names(parameters: Parameters) -> tuple[str, ...]:
    return (*parameters.strip, *parameters.default, *parameters.set, *parameters.cap)


_HIDING: Final = re.compile(rb"\\u00(?:2[dDeE]|3[\daA]|[46][\da-fA-F]|[57][\daAfF])")


def _may_hide_keys(body: bytes) -> bool:
    """Whether a letter of a plain name is written as an escape, so that a key isn't found by its name."""
    return body.rfind(b"\\u00") >= 0 and _HIDING.search(body) is not None


class _Field:
    """What becomes of one top-level field."""

    __slots__ = ("_cap", "_cap_text", "_put", "addition", "is_stripped")

    def __init__(self, name: str, parameters: tuple[Parameters, ...]) -> None:
        _, put, _ = _outcome(name, parameters, is_sent=False)
        self.addition = b"" if put is None else b",%b:%b" % (msgspec.json.encode(name), put)
        is_kept, self._put, self._cap = _outcome(name, parameters, is_sent=True)
        self._cap_text = _number(self._cap)
        self.is_stripped = not is_kept and self._put is None
        if self.is_stripped:
            self._put = b""

    def instead_of(self, value: bytes) -> bytes | None:
        """What takes the place of `value`; None: it stays."""
        if self._put is not None:
            return None if value == self._put else self._put
        return self._cap_text if value[0] in _NUMBERS and float(value) > self._cap else None


def _outcome(name: str, parameters: tuple[Parameters, ...], *, is_sent: bool) -> tuple[bool, bytes | None, float]:
    """Whether what was sent stays, what stands there instead, and the cap on what stays."""
    is_kept, put, cap = is_sent, None, math.inf
    for each in parameters:
        if name in each.strip:
            is_kept, put, cap = False, None, math.inf
        if name in each.default and not is_kept and put is None:
            put = each.default[name].encode()
        if name in each.set:
            is_kept, put, cap = False, each.set[name].encode(), math.inf
        if name in each.cap:
            limit = each.cap[name]
            if put is not None and put[0] in _NUMBERS and float(put) > limit:
                put = _number(limit)
            cap = min(cap, limit)
    return is_kept, put, cap


_NUMBERS: Final = b"-0123456789IN"  # what they begin with; Infinity and NaN among them


def _number(value: float) -> bytes:
    return b"%d" % value if abs(value) < 1e15 and value == int(value) else str(value).encode()


class _Large(msgspec.Struct, gc=False):
    """Fields that are large where they are sent: stepped over at the speed of C."""

    documents: Raw = Raw()
    functions: Raw = Raw()
    image: Raw = Raw()
    images: Raw = Raw()
    input: Raw = Raw()
    input_prefix: Raw = Raw()
    input_suffix: Raw = Raw()
    messages: Raw = Raw()
    prompt: Raw = Raw()
    queries: Raw = Raw()
    response_format: Raw = Raw()
    system: Raw = Raw()
    text_1: Raw = Raw()
    text_2: Raw = Raw()
    texts: Raw = Raw()
    tools: Raw = Raw()


_large: Final = msgspec.json.Decoder(_Large).decode
_LARGE: Final = {name.encode(): name for name in _Large.__struct_fields__}

_PLAIN: Final = re.compile(r"[\w.:-]+", re.ASCII)
_COMMA: Final = re.compile(rb"[ \t\r\n]*+,[ \t\r\n]*+")

# The body was read before, so it is JSON. That leaves little to tell apart: strings (which may hold brackets),
# brackets, and what stands between.
_OPENING: Final = re.compile(rb"[ \t\r\n]*+\{")
_MEMBER: Final = re.compile(
    rb'[ \t\r\n,]*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]{0,64}+"|[-+.\w]++|)', re.DOTALL
)
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


class _Members:
    """The members of a JSON object, one after the other."""

    __slots__ = ("_body", "_large", "_tokens", "end", "key", "opening", "start", "value_start", "view")

    def __init__(self, body: bytes) -> None:
        opening = _OPENING.match(body)
        assert opening is not None
        self.view = memoryview(body)
        self.opening = opening.end()
        self.key = b""  # without its escapes
        self.start = 0  # of its key
        self.value_start = 0
        self.end = self.opening
        self._body = body
        self._tokens = 0
        self._large: _Large | None = None

    def step(self) -> bool:
        """To the next member; False if there is none."""
        found = _MEMBER.match(self._body, self.end)
        if found is None:
            return False
        self.start = found.start(1) - 1
        key = found[1]
        self.key = _unescaped(key) if 92 in key else key
        self.value_start, self.end = found.span(2)
        if self.value_start == self.end:
            self.end = self._end_of_large() or self._end_of_any()
        self._count()
        return True

    def value(self) -> bytes:
        """The text of the member's value."""
        return self._body[self.value_start : self.end]

    def _end_of_large(self) -> int:
        """The decoder says what the field's last value is. Where the same text stands, it is this value, since no
        string, array or object is the beginning of another one."""
        name = _LARGE.get(self.key)
        if name is None:
            return 0
        if self._large is None:
            try:
                self._large = _large(self._body)
            except msgspec.DecodeError:  # it was read laxly
                self._large = _Large()
        value: Raw = getattr(self._large, name)
        end = self.value_start + len(value)
        return end if value and Raw(self.view[self.value_start : end]) == value else 0

    def _end_of_any(self) -> int:
        if self._body[self.value_start] == 34:
            return self._end_of_string()
        depth = 0
        for token in _TOKEN.finditer(self._body, self.value_start):
            self._count()
            if token[0] in b"{[":
                depth += 1
            elif token[0] in b"]}":
                depth -= 1
                if depth == 0:
                    return token.end()
        raise AssertionError("a body that was read ends before its value")

    def _end_of_string(self) -> int:
        """Found from quote to quote, which is fast for what is long: such strings are mostly base64."""
        body, end = self._body, self.value_start
        while True:
            end = body.index(b'"', end + 1)
            escapes = end
            while body[escapes - 1] == 92:
                escapes -= 1
            if (end - escapes) % 2 == 0:
                return end + 1
            self._count()

    def _count(self) -> None:
        self._tokens += 1
        if self._tokens > TOKEN_LIMIT:
            raise BodyError(f"cannot edit the request's body: it has more than {TOKEN_LIMIT:,} values to step over")


def _unescaped(key: bytes) -> bytes:
    text: str = json.loads(b'"%b"' % key.decode(errors="replace").encode())
    return text.encode("utf-8", "surrogatepass")

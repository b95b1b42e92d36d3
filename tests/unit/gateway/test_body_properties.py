"""Whatever a body holds: what is not edited is the same bytes, and what is edited is as the parameters say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from modelgrid.gateway.body import BodyError, Edits, read
from modelgrid.spec import Parameters

KEYS = ["temperature", "max_tokens", "user", "messages", "prompt", "é\U0001f600", 'a"b\\', "", "n", "x-1.y:Z_"]


@dataclass(frozen=True)
class Member:
    key: str
    text: bytes  # of key, colon and value, with the space between
    value: bytes
    space: tuple[bytes, bytes]  # before and after


@dataclass(frozen=True)
class Body:
    before: bytes
    members: tuple[Member, ...]
    after: bytes

    @property
    def text(self) -> bytes:
        return self.before + b",".join(m.space[0] + m.text + m.space[1] for m in self.members) + self.after


def _plain(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2)) + '"'


def _half_escaped(text: str) -> str:
    return '"' + "".join((_escaped if place % 2 else _plain)(c)[1:-1] for place, c in enumerate(text)) + '"'


_spaces = st.text(alphabet=" \t\r\n", max_size=3).map(str.encode)
_planes = st.integers(0, 16).flatmap(
    lambda plane: st.characters(
        min_codepoint=plane << 16, max_codepoint=(plane << 16) + 0xFFFF, exclude_categories=["Cs"]
    )
)
_texts = st.text(_planes | st.sampled_from('"\\{}[]:,/ model'), max_size=8)
_writers: st.SearchStrategy[Callable[[str], str]] = st.sampled_from([json.dumps, _plain, _escaped, _half_escaped])
_strings = st.builds(lambda write, text: write(text).encode(), _writers, _texts)
_numbers = st.sampled_from(
    ["-0", "7", "4096", "4097", "1E+3", "10.0", "1.50", "1000000000000000000000", "9007199254740993", "1e400", "-1e400"]
).map(str.encode) | st.integers().map(lambda number: str(number).encode())
_odd = {
    "strict": [b'"\xff\xfe\x80"', b'"\xed\xa0\x80 \xc3"'],  # invalid UTF-8
    "lax": [b"NaN", b"Infinity", b"-Infinity", b'"\\ud83d"', b'"\\udead\\ud800"'],
    "plain": [b"null", b"true"],
}


def _values(kind: str) -> st.SearchStrategy[bytes]:
    scalars = _strings | _numbers | st.sampled_from([b"null", b"true", b"false", b'"model"', b'"' + b"x" * 99 + b'"'])
    keys = _strings | st.sampled_from([b'"model"', b'"max_tokens"', b'"\\u006dodel"'])
    return st.recursive(
        scalars | st.sampled_from(_odd[kind]),
        lambda inner: (
            st.lists(st.tuples(_spaces, inner), max_size=3).map(
                lambda items: b"[%b]" % b",".join(s + v for s, v in items)
            )
            | st.lists(st.tuples(keys, _spaces, inner), max_size=3).map(
                lambda items: b"{%b }" % b",".join(k + s + b":" + v for k, s, v in items)
            )
        ),
        max_leaves=4,
    )


@st.composite
def _members(draw: st.DrawFn, key: str, values: st.SearchStrategy[bytes]) -> Member:
    value = draw(values)
    text = draw(_writers)(key).encode() + draw(_spaces) + b":" + draw(_spaces) + value
    return Member(key, text, value, (draw(_spaces), draw(_spaces)))


_names = st.builds(
    lambda write, text: write(text).encode(),
    _writers,
    st.text(_planes | st.sampled_from('"\\m'), min_size=1, max_size=8),
)


@st.composite
def _bodies(draw: st.DrawFn, fewest_models: int = 1) -> Body:
    values = _values(draw(st.sampled_from(sorted(_odd))))
    members = [draw(_members(key, values)) for key in draw(st.lists(st.sampled_from(KEYS) | _texts, max_size=5))]
    members = [member for member in members if member.key != "model"]
    for _ in range(draw(st.integers(fewest_models, 2))):
        members.insert(draw(st.integers(0, len(members))), draw(_members("model", _names)))
    if not members:
        return Body(draw(_spaces) + b"{" + draw(_spaces), (), b"}" + draw(_spaces))
    return Body(draw(_spaces) + b"{", tuple(members), b"}" + draw(_spaces))


_fields = st.sampled_from(KEYS)
_new = st.sampled_from(["1", "0.5", '"é"', "null", '{"model": [1]}', "1000000000000000000000"])
_parameters = st.builds(
    Parameters,
    strip=st.lists(_fields, max_size=3).map(tuple),
    default=st.dictionaries(_fields, _new, max_size=3),
    set=st.dictionaries(_fields, _new, max_size=3),
    cap=st.dictionaries(_fields, st.sampled_from([0.0, 0.7, 1000.0, 4096.0, 1e20, -1.5]), max_size=3),
)
_stacks = st.lists(_parameters, max_size=2).map(tuple)


def _parsed(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Key and value of each member, by another parser."""
    text = body.decode(errors="surrogateescape").strip(" \t\r\n")
    decoder = json.JSONDecoder()
    assert text[0] == "{"
    assert text[-1] == "}"
    at = _past_space(text, 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        at = _past_space(text, end)
        assert text[at] == ":"
        at = _past_space(text, at + 1)
        _, end = decoder.raw_decode(text, at)
        yield key, text[at:end].encode(errors="surrogateescape")
        at = _past_space(text, end)
        if text[at] == ",":
            at = _past_space(text, at + 1)
            assert text[at] == '"'
    assert at == len(text) - 1


def _past_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _edited(members: list[tuple[str, bytes]], parameters: Parameters) -> list[tuple[str, bytes]]:
    """The edit on the parsed value."""
    members = [(key, value) for key, value in members if key not in parameters.strip]
    sent = {key for key, _ in members}
    members += [(key, value.encode()) for key, value in parameters.default.items() if key not in sent]
    members = [
        (key, parameters.set.get(key, value.decode(errors="surrogateescape")).encode(errors="surrogateescape"))
        for key, value in members
    ]
    sent = {key for key, _ in members}
    members += [(key, value.encode()) for key, value in parameters.set.items() if key not in sent]
    return [(key, _capped(value, parameters.cap.get(key))) for key, value in members]


def _capped(value: bytes, cap: float | None) -> bytes:
    number = json.loads(value.decode(errors="replace"))
    if cap is None or isinstance(number, bool) or not isinstance(number, int | float) or not float(value) > cap:
        return value
    return json.dumps(int(cap) if cap == int(cap) and cap < 1e15 else cap).encode()


@settings(max_examples=100)
@given(_bodies(), st.text(_planes, min_size=1), st.integers(0, 1))
def test_a_model_is_replaced_wherever_it_stands_and_nothing_else_is(body: Body, name: str, which: int) -> None:
    value = msgspec.json.encode(name)
    members = (
        b"".join((m.space[0], m.text[: -len(m.value)], value if m.key == "model" else m.value, m.space[1]))
        for m in body.members
    )
    edits = Edits(name)
    models = [member for member in body.members if member.key == "model"]
    edits.apply(b"{%b}" % models[which % len(models)].text)  # which it remembers
    assert edits.apply(body.text) == body.before + b",".join(members) + body.after


@settings(max_examples=100)
@given(_bodies(), _stacks)
def test_an_edit_of_the_bytes_is_the_edit_of_the_value(body: Body, parameters: tuple[Parameters, ...]) -> None:
    model = Parameters(set={"model": '"new"'})
    spliced = Edits("new", *parameters).apply(body.text)
    stepped = Edits(None, *parameters, model).apply(body.text)
    expected = [(member.key, member.value) for member in body.members]
    for each in (*parameters, model):
        expected = _edited(expected, each)
    assert set(_parsed(spliced)) == set(_parsed(stepped)) == set(expected)


@settings(max_examples=100)
@given(_bodies(fewest_models=0), _stacks)
def test_what_no_parameter_names_keeps_its_bytes_and_its_order(body: Body, parameters: tuple[Parameters, ...]) -> None:
    edited = Edits(None, *parameters).apply(body.text, names_model=False)
    named = {key for each in parameters for key in (*each.strip, *each.default, *each.set, *each.cap)}
    at = 0
    for member in body.members:
        if member.key not in named:
            at = edited.index(member.text, at) + len(member.text)
    if not named & {member.key for member in body.members} and not any(each.default or each.set for each in parameters):
        assert edited is body.text or edited == body.text


@settings(max_examples=100)
@given(_bodies())
def test_the_model_that_is_read_is_the_last_one(body: Body) -> None:
    models = [json.loads(member.value) for member in body.members if member.key == "model"]
    assert read(body.text).model == models[-1]


@settings(max_examples=100)
@given(_bodies(), st.data())
def test_a_damaged_body_is_refused_or_edited_but_never_worse(body: Body, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body.text)))
    damaged = body.text[:place] + data.draw(st.binary(max_size=3)) + body.text[place + data.draw(st.integers(0, 3)) :]
    try:
        names_model = bool(read(damaged).model)
    except BodyError:
        return
    Edits("new", Parameters(strip=("user",), cap={"n": 1})).apply(damaged, names_model=names_model)

"""Finding and replacing a body's model."""

from __future__ import annotations

import json
import random
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.gateway.body import LAX_LIMIT_BYTES, BodyError, Edits, read
from modelgrid.spec import Parameters

_scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(
    _scalars | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=20,
)
_model_keys = st.sampled_from(['"model"', '"mod\\u0065l"', '"\\u006d\\u006f\\u0064\\u0065\\u006c"'])
_spaces = st.text(alphabet=" \t\r\n", max_size=3)


@st.composite
def _bodies(draw: st.DrawFn) -> list[str]:
    """An object's text in pieces: those at odd places are the values of its top-level models."""
    as_ascii = draw(st.booleans())
    others = draw(st.dictionaries(st.text().filter(lambda key: key != "model"), _values, max_size=5))
    write = partial(json.dumps, ensure_ascii=as_ascii)
    members = [(write(key), write(value)) for key, value in others.items()]
    for _ in range(draw(st.integers(1, 3))):
        name = write(draw(st.text(min_size=1)))
        members.insert(draw(st.integers(0, len(members))), (draw(_model_keys), name))
    pieces = [draw(_spaces) + "{"]
    for place, (key, value) in enumerate(members):
        pieces[-1] += ("," if place else "") + draw(_spaces) + key + draw(_spaces) + ":" + draw(_spaces)
        if json.loads(key) == "model":
            pieces += [value, draw(_spaces)]
        else:
            pieces[-1] += value + draw(_spaces)
    pieces[-1] += "}" + draw(_spaces)
    return pieces


@given(_bodies(), st.text(min_size=1))
def test_splice_replaces_the_models_and_keeps_every_other_byte(pieces: list[str], name: str) -> None:
    body = "".join(pieces).encode()
    spliced = Edits(name).apply(body)
    value = msgspec.json.encode(name)
    assert spliced == b"".join(value if place % 2 else piece.encode() for place, piece in enumerate(pieces))
    assert json.loads(spliced) == {**json.loads(body), "model": name}


@given(_bodies())
def test_the_model_that_is_read_is_the_one_that_json_reads(pieces: list[str]) -> None:
    body = "".join(pieces).encode()
    assert read(body).model == json.loads(body)["model"]


@pytest.mark.parametrize(
    ("body", "spliced"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b'{"x":{"model":"a"},"model" : "a" }', b'{"x":{"model":"a"},"model" : "new" }'),
        (b'{"model":"a","model":"b"}', b'{"model":"new","model":"new"}'),
        (b'{"p":"\\"model\\":\\"a\\"","model":"a"}', b'{"p":"\\"model\\":\\"a\\"","model":"new"}'),
        (b'{"p":"model","model":"a"}', b'{"p":"model","model":"new"}'),
        (b'{"p":["model",{"model":"a"},"}"],"model":"a"}', b'{"p":["model",{"model":"a"},"}"],"model":"new"}'),
        (b'{"mod\\u0065l":"a","n":1.50}', b'{"mod\\u0065l":"new","n":1.50}'),
    ],
)
def test_splice_of_hard_places(body: bytes, spliced: bytes) -> None:
    assert Edits("new").apply(body) == spliced


PARAMETERS = Parameters(
    strip=("user", "seed"),
    default={"temperature": "0.7"},
    set={"top_p": "1"},
    cap={"max_tokens": 4096, "n": 1.5},
)


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (b'{"model":"a"}', b'{"model":"new","temperature":0.7,"top_p":1}'),
        (b'{"model":"a","top_p":1,"temperature":1.0}', b'{"model":"new","top_p":1,"temperature":1.0}'),
        (b'{"user":1,"model":"a","top_p":1,"temperature":0}', b'{"model":"new","top_p":1,"temperature":0}'),
        (b'{"temperature":0,"model":"a","top_p":2 , "user":1 }', b'{"temperature":0,"model":"new","top_p":1  }'),
        (b'{"top_p":1,"temperature":0,"model":"a" , "seed":1,"user":1}', b'{"top_p":1,"temperature":0,"model":"new"}'),
        (b'{"seed":1,"user":1, "model":"a","temperature":0,"top_p":1}', b'{"model":"new","temperature":0,"top_p":1}'),
        (
            b'{"model":"a","user":1,"x":{"user":1},"user":[1],"temperature":0,"top_p":1}',
            b'{"model":"new","x":{"user":1},"temperature":0,"top_p":1}',
        ),
        (
            b'{"model":"a","messages":[{"role":"user"}],"user":"u","temperature":0,"top_p":1}',
            b'{"model":"new","messages":[{"role":"user"}],"temperature":0,"top_p":1}',
        ),
        (
            b'{"model":"a","temperature":0,"top_p":1,"max_tokens":1,"max_tokens":5e3}',
            b'{"model":"new","temperature":0,"top_p":1,"max_tokens":1,"max_tokens":4096}',
        ),
        (
            b'{"model":"a","temperature":0,"top_\\u0070":2,"m\\u0061x_tokens":9999}',
            b'{"model":"new","temperature":0,"top_\\u0070":1,"m\\u0061x_tokens":4096}',
        ),
        (
            b'{"prompt":["}",{"user":1}],"prompt":[],"user":"\\"","model":"a","user":"%b","temperature":0,"top_p":1}'
            % (b'\\"' * 99),
            b'{"prompt":["}",{"user":1}],"prompt":[],"model":"new","temperature":0,"top_p":1}',
        ),
        (
            b'{"x":"%b","model":"a","model":"b","temperature":0,"top_p":2}' % (b'\\"' * 99),
            b'{"x":"%b","model":"new","model":"new","temperature":0,"top_p":1}' % (b'\\"' * 99),
        ),
        (b'{"model":"a","temperature":null,"top_p":1}', b'{"model":"new","temperature":null,"top_p":1}'),
    ],
)
def test_parameters_change_their_fields_and_nothing_else(body: bytes, edited: bytes) -> None:
    assert Edits("new", PARAMETERS).apply(body) == edited


@pytest.mark.parametrize("before", ["", '"n":0,', '"x":{"n":9},'])
@pytest.mark.parametrize(
    ("value", "capped"),
    [
        ("2", "1.5"),
        ("1.5", "1.5"),
        ("1.50", "1.50"),
        ("1", "1"),
        ("1e3", "1.5"),
        ("10.0", "1.5"),
        ("1000000000000000000000", "1.5"),
        ("9" * 5000, "1.5"),
        ("1e999", "1.5"),
        ("Infinity", "1.5"),
        ("-Infinity", "-Infinity"),
        ("NaN", "NaN"),
        ("-7", "-7"),
        ("0.1e1", "0.1e1"),
        ('"2"', '"2"'),
        ("null", "null"),
        ("true", "true"),
        ("[2]", "[2]"),
        ('{"n":2}', '{"n":2}'),
    ],
)
def test_a_cap_compares_numbers_of_any_form(before: str, value: str, capped: str) -> None:
    edits = Edits("m", Parameters(cap={"n": 1.5}))
    body = '{"model":"m",%s"n":%s}'
    text = (body % (before, value)).encode()
    assert read(text).model == "m"
    assert edits.apply(text) == (body % (before, capped)).encode()


@pytest.mark.parametrize("letter", "-.:_0189azAZJjOoPp")
@pytest.mark.parametrize("write", ["\\u%04x", "\\u%04X"])
def test_an_escape_hides_no_key(letter: str, write: str) -> None:
    name, key = f"k{letter}".encode(), b"k" + (write % ord(letter)).encode()
    body = b'{"model":"m","x":["%b",5],"%b":%%d}' % (name, key)
    assert Edits("m", Parameters(cap={name.decode(): 1})).apply(body % 5) == body % 1


def test_a_cap_is_written_as_people_would() -> None:
    caps = {"a": 4096.0, "b": 0.5, "c": 1e20, "d": 7}
    body = b'{"model":"m","a":1e99,"b":1e99,"c":1e99,"d":1e99}'
    assert Edits("m", Parameters(cap=caps)).apply(body) == b'{"model":"m","a":4096,"b":0.5,"c":1e+20,"d":7}'


def test_parameters_follow_each_other() -> None:
    first = Parameters(strip=("a",), set={"b": "5"}, cap={"c": 10})
    second = Parameters(default={"a": "1"}, cap={"b": 3, "c": 20})
    edits = Edits("m", first, second)
    assert edits.apply(b'{"model":"m","a":7,"b":1,"c":15}') == b'{"model":"m","a":1,"b":3,"c":10}'
    assert edits.apply(b'{"model":"m"}') == b'{"model":"m","a":1,"b":3}'


@pytest.mark.parametrize(
    ("body", "edited"),
    [
        (b" { } ", b' {"model":"m" } '),
        (b'{"x":{"model":"a"}}', b'{"x":{"model":"a"},"model":"m"}'),
        (b'{"model":null}', b'{"model":"m"}'),
        (b'{"user":1}', b'{"model":"m"}'),
        (b'{ "user":1, "user":2 }', b'{ "model":"m" }'),
    ],
)
def test_a_body_without_a_model_gets_it(body: bytes, edited: bytes) -> None:
    assert Edits("m", Parameters(strip=("user",))).apply(body, names_model=False) == edited


def test_no_served_name_leaves_the_model() -> None:
    assert Edits(None, Parameters(strip=("a",))).apply(b'{"a":1,"model":"x"}') == b'{"model":"x"}'


@pytest.mark.parametrize("body", [b'{"model":"m","x":[1.0]}', b'{ "model" : "m" }', b'{"messages":[],"model":"m"}'])
def test_a_body_that_is_right_is_the_same_object(body: bytes) -> None:
    for edits in (Edits("m"), Edits("m", Parameters(strip=("user",), cap={"n": 1}))):
        assert edits.apply(body) is body
        assert edits.apply(body) is body


def test_how_a_model_is_written_is_remembered_within_limits() -> None:
    edits = Edits("m")
    edits.apply(b'{"model":%b"a"}' % (b" " * 100_000))
    assert len(edits._seen) < 1000


def test_an_edit_serves_callers_that_write_the_model_in_turn_in_many_ways() -> None:
    edits = Edits("m")
    bodies = [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","n":1}',
        b'{"model":"b","n":1}',
        b'{"n":1,"model": "b"}',
        b'{"x":{"model":"a"},"model":"a"}',
        b'{"model":"m"}',
    ]
    for before in bodies:
        for body in bodies:
            edits.apply(before)
            edited = json.loads(edits.apply(body), object_pairs_hook=list)
            sent = json.loads(body, object_pairs_hook=list)
            assert edited == [(key, "m" if key == "model" else value) for key, value in sent]


@pytest.mark.parametrize("key", ["messages", "massages"])
def test_large_values_are_stepped_over_in_linear_time(key: str) -> None:
    value = {key: ["\\" * 400_000, '"' * 50_000, [[]] * 50_000, "x" * 1_000_000], "n": 5, "model": "a", "x": {"n": 1}}
    body = json.dumps(value).encode()
    assert json.loads(Edits("m", Parameters(cap={"n": 1})).apply(body)) == {**value, "n": 1, "model": "m"}


@pytest.mark.parametrize(
    "body", [b'{"x":[%b{}],"model":"a","x":1}' % (b"[]," * 2_000_000), b'{%b"model":"a"}' % (b'"model":"a",' * 5000)]
)
def test_what_would_take_too_long_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError, match="cannot edit the request's body"):
        Edits("m", Parameters(strip=("x",))).apply(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","n":NaN,"user":1}',
        b'{"model":"a","n":[Infinity,-Infinity],"user":1}',
        b'{"model":"a","n":"\\ud83d","user":1}',
        b'{"model":"a","n":"\\ude00\\ud83d","user":1,"stream":true}',
    ],
)
def test_what_python_takes_as_json_passes(body: bytes) -> None:
    asked = read(body)
    assert (asked.model, asked.is_stream) == ("a", b"stream" in body)
    edited = Edits("b", Parameters(strip=("user",))).apply(body)
    assert edited == body.replace(b'"a"', b'"b"').replace(b',"user":1', b"")


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"model":"a"}',
        '{"model":"a"}'.encode("utf-16"),
        b'{"model":"\\ud83d"}',
        b'{"model":NaN}',
        b"[NaN]",
        b'{"model":"a","n":NaN,"x":"\xff"}',
        b'{"model":"a","n":nan}',
        b'{"model":"a","n":NaN,"x":"%b"}' % (b"x" * LAX_LIMIT_BYTES),
    ],
)
def test_other_lax_json_is_refused(body: bytes) -> None:
    with pytest.raises(BodyError, match="cannot read the request's"):
        read(body)


@pytest.mark.parametrize("body", [b"{}", b'{"model":null}', b'{"model":""}', b'{"x":{"model":"a"}}'])
def test_a_body_may_name_no_model(body: bytes) -> None:
    assert not read(body).model


@pytest.mark.parametrize("value", [b"false", b"null", b'"true"', b"1", b'{"a":[]}', b'"\xff"', b"1e999"])
def test_only_true_asks_for_a_stream(value: bytes) -> None:
    assert read(b'{"stream": true }').is_stream
    assert not read(b'{"stream":%b}' % value).is_stream


def test_splice_of_a_large_body_takes_linear_time() -> None:
    letters = random.Random(1).choices(['"', "\\", "{", "a", "\n"], k=200_000)
    body = json.dumps({"messages": [{"content": "".join(letters)}] * 5, "model": "a"}).encode()
    assert json.loads(Edits("b").apply(body))["model"] == "b"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (b'{"model":\n "a",}', "byte 15), line 2 column 6"),
        (b"[1]", "Expected `object`"),
        (b'"model"', "Expected `object`"),
        (b'{"model":7}', "cannot read the request's model"),
        (b'{"model":"\xff"}', "cannot read the request's body"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"model":"a"} x', "trailing characters"),
    ],
)
def test_a_body_that_cant_be_read_says_where(body: bytes, says: str) -> None:
    with pytest.raises(BodyError) as caught:
        read(body)
    assert says in str(caught.value)

"""Finding and replacing a body's model."""

from __future__ import annotations

import json
import random
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.gateway.body import BodyError, read_model, splice_model

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
    spliced = splice_model(body, name)
    value = msgspec.json.encode(name)
    assert spliced == b"".join(value if place % 2 else piece.encode() for place, piece in enumerate(pieces))
    assert json.loads(spliced) == {**json.loads(body), "model": name}


@given(_bodies())
def test_the_model_that_is_read_is_the_one_that_json_reads(pieces: list[str]) -> None:
    body = "".join(pieces).encode()
    assert read_model(body) == json.loads(body)["model"]


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
    assert splice_model(body, "new") == spliced


def test_splice_of_a_large_body_takes_linear_time() -> None:
    letters = random.Random(1).choices(['"', "\\", "{", "a", "\n"], k=200_000)
    body = json.dumps({"messages": [{"content": "".join(letters)}] * 5, "model": "a"}).encode()
    assert json.loads(splice_model(body, "b"))["model"] == "b"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "truncated"),
        (b'{"model":\n "a",}', "byte 15), line 2 column 6"),
        (b"[1]", "Expected `object`"),
        (b'"model"', "Expected `object`"),
        (b"{}", "names none"),
        (b'{"model":null}', "names none"),
        (b'{"model":""}', "names none"),
        (b'{"model":7}', "cannot read the request's model"),
        (b'{"model":"\xff"}', "cannot read the request's body"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"model":"a"} x', "trailing characters"),
    ],
)
def test_a_body_that_cant_be_read_says_where(body: bytes, says: str) -> None:
    with pytest.raises(BodyError) as caught:
        read_model(body)
    assert says in str(caught.value)

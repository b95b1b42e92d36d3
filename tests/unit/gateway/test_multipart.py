"""Finding the model of a form, however it is sent and cut, and holding what comes before it."""

from __future__ import annotations

import gc
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgrid.gateway.multipart import (
    FIELD_LIMIT_BYTES,
    HEAD_LIMIT_BYTES,
    PART_LIMIT,
    PIECE_BYTES,
    Field,
    Held,
    MultipartScanner,
    boundary_of,
)


def scan(body: bytes, boundary: bytes = b"b", size: int = 1 << 20) -> MultipartScanner:
    scanner = MultipartScanner(boundary, (b"model", b"stream"))
    for at in range(0, len(body), size):
        scanner.feed(body[at : at + size])
    return scanner


def value_of(body: bytes, boundary: bytes = b"b", size: int = 1 << 20) -> bytes | None:
    scanner = scan(body, boundary, size)
    assert scanner.error is None
    assert scanner.is_done
    model = scanner.model
    assert model is None or body[model.start : model.end] == model.value
    return None if model is None else model.value


def part(head: str, value: bytes) -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


MODEL = part('Content-Disposition: form-data; name="model"', b"whisper")
FILE = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'
END = b"--b--\r\n"

CURL = (
    b"--------------------------d74496d66958873e\r\n"
    b'Content-Disposition: form-data; name="file"; filename="say \\"model\\".wav"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\x00\xff\r\n--\r\n"
    b"\r\n--------------------------d74496d66958873e\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b"--------------------------d74496d66958873e--\r\n"
)
BROWSER = (
    b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n"
    b'Content-Disposition: form-data; name="file"; filename="%22model%22.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"RIFF\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n"
)
UNDICI = (
    b"------formdata-undici-0123456789\r\n"
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b"------formdata-undici-0123456789--\r\n\r\n"
)


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (CURL, b"------------------------d74496d66958873e"),
        (BROWSER, b"----WebKitFormBoundary7MA4YWxkTrZu0gW"),
        (UNDICI, b"----formdata-undici-0123456789"),
    ],
    ids=["curl", "browser", "undici"],
)
@pytest.mark.parametrize("size", [1, 2, 3, 50, 10_000])
def test_clients_are_understood(body: bytes, boundary: bytes, size: int) -> None:
    assert value_of(body, boundary, size) == b"whisper"


def test_httpx_is_understood() -> None:
    request = httpx.Request(
        "POST", "http://x", data={"model": "whisper", "stream": "true"}, files={"file": ('m"odel.wav', b"\r\n--" * 9)}
    )
    boundary = boundary_of(request.headers["content-type"].encode())
    assert boundary is not None
    scanner = scan(request.read(), boundary)
    assert {name: field.value for name, field in scanner.fields.items()} == {b"model": b"whisper", b"stream": b"true"}


@pytest.mark.parametrize(
    "head",
    [
        "Content-Disposition: form-data; name=model",
        "content-disposition:form-data;NAME = model ; x=y",
        'CONTENT-DISPOSITION: form-data; filename="x; name=file"; name="model"',
        'Content-Type: text/plain\r\nContent-Disposition: form-data;\r\n\tname="model"',
        'Content-Disposition: form-data; filename="a\\\\"; name="model"',
        "Content-Disposition: form-data; filename*=UTF-8''a; name=\"model\"",
    ],
)
def test_a_head_is_read_as_it_may_be_written(head: str) -> None:
    assert value_of(part(head, b"whisper") + END) == b"whisper"


@pytest.mark.parametrize(
    "head",
    [
        'Content-Disposition: form-data; name="Model"',
        'Content-Disposition: form-data; filename="model"',
        'Content-Disposition: form-data; name="x"; filename="; name=model"',
        'Content-Disposition: form-data; name="x\\"; name=model; y=\\""',
        'X-Content-Disposition: form-data; name="model"',
        "Content-Type: text/plain",
    ],
)
def test_other_names_are_not_the_model(head: str) -> None:
    assert value_of(part(head, b"whisper") + END) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"--b",
        b"--b--",
        b"\n--b\r\n",
        b"\r\n--",
        b"\r\n--bb\r\n\r\n",
        b"\r\n--b x\r\n",
        b"\r\n--b-\r\n",
        b"\r\n--b \tx\r\n",
        b"\r\n-b--\r\n",
        b"\r\r\n",
        b"\n--b\nContent-Disposition: form-data; name=model\n\nother\n",
        MODEL,
        b"\n" + MODEL,
    ],
)
@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_a_file_that_looks_like_a_form_is_a_file(content: bytes, size: int) -> None:
    assert value_of(part(FILE, content) + MODEL + END, size=size) == b"whisper"
    assert value_of(MODEL + part(FILE, content) + END, size=size) == b"whisper"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_the_rules_allow_is_understood(size: int) -> None:
    assert value_of(b"preamble\r\n--bx\r\n" + MODEL + END + MODEL, size=size) == b"whisper"
    assert value_of((MODEL + END).replace(b"\r\n", b"\n"), size=size) == b"whisper"
    assert value_of(MODEL.replace(b"--b\r\n", b"--b \t\r\n") + b"--b--", size=size) == b"whisper"
    assert value_of(b"--b\r\n\r\nno head\r\n" + MODEL + END, size=size) == b"whisper"
    assert value_of(part('Content-Disposition: form-data; name="model"', b"") + END, size=size) == b""


_contents = st.lists(st.sampled_from([b"\r\n", b"--", b"b", b"\n", b"\r", b"-", b"x", b'name="model"', b"\xff"])).map(
    b"".join
)


@given(
    st.lists(_contents.filter(lambda content: b"--b" not in content), max_size=4),
    st.integers(0, 4),
    _contents.filter(lambda content: b"--b" not in content),
    st.lists(st.integers(0, 60), max_size=20),
)
def test_a_model_is_found_wherever_it_stands_and_the_body_is_cut(
    contents: list[bytes], place: int, value: bytes, cuts: list[int]
) -> None:
    parts = [part(FILE, content) for content in contents]
    parts.insert(place, part("Content-Disposition: form-data; name=model", value))
    body = b"".join(parts) + END
    scanner = MultipartScanner(b"b")
    at = 0
    for cut in cuts:
        scanner.feed(body[at : at + cut])
        at += cut
    scanner.feed(body[at:])
    assert scanner.error is None
    assert scanner.is_done
    assert scanner.model is not None
    assert scanner.model.value == value
    assert body[scanner.model.start : scanner.model.end] == value


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"--b", b"\r\n", b"\r\n\r\n", MODEL, END]), max_size=12))
def test_no_body_is_too_odd(pieces: list[bytes]) -> None:
    whole, in_pieces = MultipartScanner(b"b"), MultipartScanner(b"b")
    whole.feed(b"".join(pieces))
    for piece in pieces:
        in_pieces.feed(piece)
    assert (whole.fields, whole.is_done, whole.error) == (in_pieces.fields, in_pieces.is_done, in_pieces.error)


def test_a_model_is_known_as_soon_as_its_delimiter_is() -> None:
    scanner = MultipartScanner(b"b")
    scanner.feed(MODEL)
    assert not scanner.fields
    scanner.feed(b"--b\r")
    assert not scanner.fields
    scanner.feed(b"\n")
    assert scanner.model == Field(len(MODEL) - 9, len(MODEL) - 2, b"whisper")
    assert not scanner.is_done


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (MODEL + MODEL + END, "names more than one"),
        (part("A: " + "x" * HEAD_LIMIT_BYTES, b"") + END, "a part's head is larger than 16 KiB"),
        (b"--b\r\n" + b"x" * HEAD_LIMIT_BYTES * 2, "a part's head is larger than 16 KiB"),
        (MODEL.replace(b"whisper", b"x" * (FIELD_LIMIT_BYTES + 1)) + END, "its model is larger than 64 KiB"),
        (MODEL[:-2] + b"x" * FIELD_LIMIT_BYTES * 2, "its model is larger than 64 KiB"),
        (part(FILE, b"") * (PART_LIMIT + 1) + END, "more than 1,000 parts"),
        (part("Content-Disposition: form-data; name=model; name=x", b"a") + END, "more than one name"),
        (part("Content-Disposition: form-data; name*=utf-8''model", b"a") + END, "more than one name"),
    ],
)
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_what_is_not_to_be_guessed_or_held_is_an_error(body: bytes, says: str, size: int) -> None:
    error = scan(body, size=size).error
    assert error is not None
    assert says in error


def test_a_large_file_is_not_held() -> None:
    scanner = MultipartScanner(b"b")
    scanner.feed(b"--b\r\n" + FILE.encode() + b"\r\n\r\n")
    for content in (b"x" * 65_536, b"\r\n--" * 20_000, b"\r" * 65_536, b"\r\n--b" + b"y" * 65_536):
        scanner.feed(content)
        assert len(scanner._rest) < 100


def test_a_scanner_holds_no_reference_to_itself() -> None:
    for body in (b"", b"--b\r\n", MODEL[:-3], MODEL + END):
        scanner = scan(body)
        assert not [each for each in gc.get_referrers(scanner) if getattr(each, "__self__", None) is scanner]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'multipart/form-data; charset=utf-8; Boundary="a b;c"', b"a b;c"),
        (b"multipart/form-data;boundary=----WebKitFormBoundaryX ", b"----WebKitFormBoundaryX"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b'multipart/form-data; boundary=""', None),
        (b"multipart/form-data; boundary=a; boundary=b", None),
        (b"multipart/form-data; boundary=" + b"x" * 201, None),
    ],
)
def test_a_boundary_is_what_the_content_type_says(content_type: bytes, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("memory_bytes", [10, 1 << 20])
def test_what_is_held_comes_back(memory_bytes: int, tmp_path: Path) -> None:
    held = Held(memory_bytes, str(tmp_path))
    data = bytes(range(256)) * 3000
    for at in range(0, len(data), 1000):
        held.add(data[at : at + 1000])
        if at % 7000 == 0:
            assert b"".join(held.pieces(at)) == data[at : at + 1000]
    assert held.size == len(data)
    pieces = list(held.pieces())
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert not list(tmp_path.iterdir())
    held.close()
    held.close()


def test_more_may_be_held_while_it_is_read() -> None:
    held = Held(4)
    held.add(b"a" * (PIECE_BYTES + 1))
    pieces = held.pieces()
    first = next(pieces)
    held.add(b"b")
    assert first + next(pieces) == b"a" * (PIECE_BYTES + 1)
    assert b"".join(held.pieces(PIECE_BYTES)) == b"ab"
    held.close()


@pytest.mark.parametrize("is_first", [False, True])
def test_a_held_form_is_sent_with_another_model(is_first: bool) -> None:
    parts = [part(FILE, b"\x00" * 600_000), MODEL]
    body = b"".join(reversed(parts) if is_first else parts) + END
    held = Held()
    held.add(body)
    model = scan(body).model
    assert model is not None
    renamed = b"".join(held.with_value(model, b"whisper-large"))
    assert renamed == body.replace(b"whisper", b"whisper-large")
    assert len(renamed) == held.size + len(b"whisper-large") - (model.end - model.start)
    held.close()

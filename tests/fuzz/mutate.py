"""Callers' bytes: requests that are right, and what can be done to them."""

from __future__ import annotations

from random import Random
from typing import Final

_HOST: Final = b"Host: localhost\r\n"
_FORM: Final = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n--x--\r\n'
)
_UPLOAD: Final = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\n" + _HOST + b"Content-Type: multipart/form-data; boundary=x\r\n"
)
_CHAT: Final = b"POST /v1/chat/completions HTTP/1.1\r\n" + _HOST

SEEDS: Final = (
    b"GET /health HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /v1/models HTTP/1.1\r\n" + _HOST + b"Authorization: Bearer k\r\n\r\n",
    b"HEAD /v1/models HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET http://localhost:9000/v1/models?a=b HTTP/1.1\r\n" + _HOST + b"\r\n",
    _CHAT + b'Content-Length: 13\r\n\r\n{"model":"m"}',
    _CHAT + b"Content-Length: 0\r\n\r\n",
    _CHAT + b'content-length: 13\r\nContent-Type: application/json\r\n\r\n{"model":"m"}',
    _CHAT + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mod\r\n8;a=b\r\nel":"m"}\r\n0\r\nA: b\r\n\r\n',
    _CHAT + b'Expect: 100-continue\r\nContent-Length: 13\r\n\r\n{"model":"m"}',
    _CHAT + b'Connection: Upgrade, X-A\r\nUpgrade: h2c\r\nX-A: 1\r\nContent-Length: 13\r\n\r\n{"model":"m"}',
    _CHAT + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    _CHAT + b"Content-Length: 52\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    _UPLOAD + b"Content-Length: %d\r\n\r\n" % len(_FORM) + _FORM,
    _UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(_FORM), _FORM),
)

_TOKENS: Final = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\0", b"\x0b", b"\xff", b":", b": ", b",", b";", b"0",
    b"1", b"00", b"-1", b"+", b"0x", b"_", b"a", b"ffffffff", b"18446744073709551616", b"13", b"HTTP/1.0",
    b"HTTP/1.1", b"HTTP/2.0", b"close", b"keep-alive", b"chunked", b"identity", b"gzip, ", b"/", b"//", b"..", b"%2e",
    b"?", b"#", b"*", b"http://a", b"@", b"\\", b"0\r\n\r\n", b"5\r\nhello\r\n", b'{"model":"m"}',
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)  # fmt: skip
_LINES: Final = (
    b"Content-Length: 13\r\n", b"Content-Length: 5\r\n", b"content-length: 0\r\n", b"CONTENT-LENGTH: 13\r\n",
    b"Content-Length : 3\r\n", b"Content-Length:13\r\n", b"Content-Length: 013 \r\n",
    b"Content-Length: 0000000000000000013\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n",
    b"Expect: x\r\n", b"Host: b\r\n", b"A: b\r\n", b" folded\r\n", b"A:\r\n", b"X: Content-Length: 7\r\n",
    b"X-Request-Id: 1\r\n", b"Trailer: A\r\n",
    b"Proxy-Connection: keep-alive\r\n", b"Proxy-Connection: close\r\n", b"Connection: Host, Content-Length\r\n",
)  # fmt: skip


def caller_bytes(dice: Random) -> tuple[bytes, bool]:
    """What one caller sends, and whether all of it is right."""
    data = b"".join(dice.choices(SEEDS, k=dice.randint(1, 4)))
    if dice.random() < 0.1:
        return data, True
    for _ in range(dice.randint(1, 3)):
        data = _MUTATIONS[dice.randrange(len(_MUTATIONS))](dice, data)
    return data, False


def pieces(dice: Random, data: bytes) -> list[bytes]:
    """`data` as it may arrive: at once, byte by byte, or in between."""
    count = dice.choice((1, 1, 1, 2, 2, 3, 5, 8, 0))
    if count == 0 and len(data) < 400:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted([dice.randint(0, len(data)) for _ in range(count - 1)])
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


def _insert(dice: Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.choice(_TOKENS) + data[at:]


def _insert_line(dice: Random, data: bytes) -> bytes:
    at = _line_start(dice, data)
    return data[:at] + dice.choice(_LINES) + data[at:]


def _replace(dice: Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + dice.choice(_TOKENS) + data[at + dice.randint(1, 4) :]


def _change_byte(dice: Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]


def _change_digit(dice: Random, data: bytes) -> bytes:
    digits = [at for at, byte in enumerate(data) if 48 <= byte < 58]
    at = dice.choice(digits) if digits else 0
    return data[:at] + b"%d" % dice.randrange(40) + data[at + 1 :]


def _remove(dice: Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + data[at + dice.choice((1, 1, 2, 2, 4, 20)) :]


def _remove_line(dice: Random, data: bytes) -> bytes:
    at = _line_start(dice, data)
    end = data.find(b"\n", at)
    return data[:at] + data[end + 1 :] if end >= 0 else data


def _repeat(dice: Random, data: bytes) -> bytes:
    at = _line_start(dice, data)
    end = _line_start(dice, data)
    return data[:end] + data[at:end] + data[end:]


def _cut_off(dice: Random, data: bytes) -> bytes:
    return data[: dice.randint(0, len(data))]


def _change_case(dice: Random, data: bytes) -> bytes:
    at = dice.randint(0, len(data))
    return data[:at] + data[at : at + 8].swapcase() + data[at + 8 :]


def _line_start(dice: Random, data: bytes) -> int:
    return data.find(b"\n", dice.randint(0, len(data))) + 1


_MUTATIONS: Final = (
    _insert, _insert, _insert_line, _insert_line, _replace, _change_byte, _change_digit, _remove, _remove_line, _repeat,
    _cut_off, _change_case,
)  # fmt: skip

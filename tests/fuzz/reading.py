"""HTTP/1.1 read a second time, plainly: all of a caller's bytes at once, nothing remembered, nothing forgiven.

What differs from RFC 9112 is what the gateway's parser is known to forgive and what harms nobody: any line ends before
the first line, several spaces in it, and RTSP for HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_LINE: Final = re.compile(rb"[\r\n]*([A-Z][A-Z-]*) +([!-~]+) +(?:HTTP|RTSP|ICE)/1\.([01])\r\n").match
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n").match
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]+)(?:;[\t -~\x80-\xff]*)?\r\n").match
_ANSWER: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]*\r\n((?:[a-z0-9-]+: [\t -~\x80-\xff]*\r\n)*)\r\n").match


@dataclass(frozen=True, slots=True)
class Read:
    """One request."""

    method: str
    target: bytes
    body: bytes
    is_last: bool  # nothing that follows it is a request


def read_requests(data: bytes) -> list[Read]:
    """The requests that `data` holds whole, up to the first that can't be read in one way only."""
    found = []
    at = 0
    while (one := _read_request(data, at)) is not None:
        request, at = one
        found.append(request)
        if request.is_last:
            break
    return found


def _read_request(data: bytes, at: int) -> tuple[Read, int] | None:
    line = _LINE(data, at)
    if line is None or line[1] == b"CONNECT":
        return None
    headers, at = _read_headers(data, line.end())
    if at < 0:
        return None
    is_http10 = line[3] == b"0"
    lengths = [value for name, value in headers if name == b"content-length"]
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    connection = {
        token.strip(b" \t").lower() for name, value in headers if name == b"connection" for token in value.split(b",")
    }
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and not is_http10) or len(lengths) + len(codings) > 1:
        return None
    if codings:
        if is_http10 or codings != [b"chunked"]:
            return None
        body, at = _read_chunks(data, at)
    elif lengths:
        if not lengths[0].isdigit() or len(lengths[0]) > 20:
            return None
        body = data[at : at + int(lengths[0])]
        at = at + int(lengths[0]) if len(body) == int(lengths[0]) else -1
    else:
        body = b""
    if at < 0:
        return None
    is_kept = b"close" not in connection and (not is_http10 or b"keep-alive" in connection)
    return Read(line[1].decode(), line[2], body, not is_kept), at


def _read_headers(data: bytes, at: int) -> tuple[list[tuple[bytes, bytes]], int]:
    headers = []
    while (header := _HEADER(data, at)) is not None:
        headers.append((header[1].lower(), header[2]))
        at = header.end()
    return headers, at + 2 if data[at : at + 2] == b"\r\n" else -1


def _read_chunks(data: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while (chunk := _CHUNK(data, at)) is not None:
        size = int(chunk[1], 16)
        at = chunk.end()
        if size == 0:
            return body, _read_headers(data, at)[1]
        if data[at + size : at + size + 2] != b"\r\n":
            break
        body += data[at : at + size]
        at += size + 2
    return b"", -1


def read_answers(data: bytes, methods: list[str]) -> list[int]:
    """The statuses of the answers that `data` is, to requests of these methods and perhaps to one that couldn't be
    read. Raises ValueError where it is anything else."""
    statuses: list[int] = []
    at = 0
    while at < len(data):
        answer = _ANSWER(data, at)
        if answer is None:
            raise ValueError(f"no answer: {data[at : at + 200]!r}")
        at = answer.end()
        if answer[1] == b"100":
            continue
        headers = [line.partition(b": ")[::2] for line in answer[2].splitlines()]
        if len(dict(headers)) != len(headers):
            raise ValueError(f"a header twice: {answer[2]!r}")
        length = int(dict(headers)[b"content-length"])
        number = len(statuses)
        statuses.append(int(answer[1]))
        if number >= len(methods):
            if number > len(methods) or len(data) - at not in (0, length):
                raise ValueError(f"more than was asked for: {data[at:]!r}")
            if dict(headers).get(b"connection") != b"close":
                raise ValueError(f"a refusal that doesn't close: {answer[2]!r}")
            break
        if methods[number] != "HEAD":
            at += length
    if at > len(data):
        raise ValueError("an answer that is shorter than it says")
    return statuses

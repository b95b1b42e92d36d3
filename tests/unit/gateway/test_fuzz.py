"""A short run of the fuzzer, with seeds that are known; `make fuzz` has the long ones."""

from __future__ import annotations

import pytest

from fuzz.callers import fuzz
from fuzz.reading import read_answers, read_requests


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_arrives_is_read_as_http_or_not_at_all(seed: int) -> None:
    assert fuzz(4000, seed) < 8 << 10  # kB


def test_the_second_reading_reads() -> None:
    data = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}GET /b HTTP/1.0\r\n\r\nGET /c HTTP/1.0\r\n\r\n"
    read = [(one.method, one.target, one.body, one.is_last) for one in read_requests(data)]
    assert read == [("POST", b"/a", b"{}", False), ("GET", b"/b", b"", True)]
    chunked = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\n{}\r\n0\r\nA: b\r\n\r\n"
    assert [one.body for one in read_requests(chunked * 2)] == [b"{}", b"{}"]
    for wrong in (
        chunked.replace(b"chunked", b"gzip"),
        chunked.replace(b"Host", b"Content-Length: 2\r\nHost"),
        chunked.replace(b"2;a", b"3;a"),
        chunked.replace(b"Host: h\r\n", b""),
        chunked[:-2],
        data[:49],
    ):
        assert read_requests(wrong) == []


def test_the_second_reading_takes_no_answer_that_is_none() -> None:
    one = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    last = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    assert read_answers(b"HTTP/1.1 100 Continue\r\n\r\n" + one + one[:-2] + last, ["GET", "HEAD"]) == [200, 200, 400]
    for wrong in (one + one, last * 3, one[:-1], one + b"{}", one.replace(b"content", b"content ")):
        with pytest.raises(ValueError):
            read_answers(wrong, ["GET"])

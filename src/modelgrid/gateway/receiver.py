"""Bytes of a caller become requests: parsed by llhttp, within limits, with each refusal that RFC 9112 asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final, NoReturn, Protocol

import httptools

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.cors import Cors
from modelgrid.gateway.endpoints import Act, Found
from modelgrid.gateway.heads import Heads
from modelgrid.gateway.options import PARSED_BYTES, SMALL_BYTES, GatewayOptions
from modelgrid.gateway.request import NOT_FORWARDED, Head, Line, Request, forwarded, note, split_target
from modelgrid.gateway.upload import Source, Upload

_HEADERS: Final = 256  # of one request, its trailers included; more is answered with 431
_FRAMING: Final = 16  # bytes of chunk sizes and extensions that a byte of a body may cost, beyond those of a head
_LENGTH_DIGITS: Final = 20  # of Content-Length


class Service(Protocol):
    """What answers requests, and counts what connections hold."""

    options: GatewayOptions
    loop: asyncio.AbstractEventLoop
    heads: Heads[Head]

    cors: Cors | None  # where pages of other sites may call

    access: object  # the table in force; a head that was checked by another is checked again
    is_draining: bool

    def hold(self, count: int) -> bool:
        """`count` more bytes of bodies are held (fewer, where negative); False where that is too much."""
        ...

    def request_id(self) -> bytes: ...

    def check(self, head: Head) -> Found | Answer:
        """What a request's head asks for, or why it won't be answered; its body is not there yet."""
        ...


class Ready:
    """A request whose turn will come."""

    __slots__ = ("must_close", "refusal", "request")

    def __init__(self, request: Request, refusal: Answer | None, *, must_close: bool = False) -> None:
        self.request = request
        self.refusal = refusal
        self.must_close = must_close  # what follows it on the connection can't be read


class Receiver:
    """Reads one caller's requests, and puts them into `ready`."""

    def __init__(self, service: Service, source: Source, ready: list[Ready]) -> None:
        self.is_receiving = False  # a request has begun and not ended
        self.is_timed = False  # the time limit is that of what is being received now
        self.is_done = False  # nothing more is read
        self.owes_continue = False
        self.refusal: Answer | None = None  # why reading was stopped
        self.upload: Upload | None = None  # the body that is being received goes here
        self.head: Head | None = None  # of the request that is being received
        self.body_bytes = 0  # of it, held here
        self._service = service
        self._options = service.options
        self._source = source
        self._ready = ready
        self._is_alone = False  # the head that is being read began with what is being fed
        self._data = b""
        self._pieces: list[bytes] = []
        self._idle_bytes = 0  # received that is neither body nor what a body may cost
        self._received = 0  # of its body
        self._timed = 0  # of its body, since its time last began
        self._begin()

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._idle_bytes += len(data)
        self._is_alone = not self.is_receiving
        rest: bytes | None = data
        while rest is not None:
            self._data = rest
            rest = self._parse(rest)
        self._data = b""
        if self.is_receiving and self._idle_bytes > self._options.header_bytes:
            self.put_last(self._too_large())

    def begin_time(self) -> None:
        """The time limit is now that of what is being received; more of a body than comes by the slowest rate that
        is allowed, and the next one begins."""
        self.is_timed = True
        self._timed = 0

    @property
    def parsed_bytes(self) -> int:
        """How much to give the parser, which can't be stopped between two requests: the rest of a body of known
        size, or little."""
        if self.is_receiving and self.head is not None and b"content-length" in self._read:
            return max(PARSED_BYTES, int(self._read[b"content-length"]) - self._received)
        return PARSED_BYTES

    def put_last(self, answer: Answer) -> None:
        """Answer so after what is ready, and close: nothing more is read."""
        self.is_done = True
        self.refusal = answer
        upload = self.upload
        self.let_go()
        if upload is not None:  # its request is being answered, or will be: it won't be whole
            upload.lose(answer)
            return
        head = self.head or self._tell_browser(Head("GET", "", read=self._read))
        if isinstance(head.found, Found):
            answer = answers.in_shape(answer, head.found)
        request = Request(head, head.sent_id or self._service.request_id())
        self._ready.append(Ready(request, answer, must_close=True))

    def let_go(self) -> None:
        """Forget what is being received."""
        self._service.hold(-self.body_bytes)
        self.body_bytes = 0
        self._pieces = []
        self.upload = None
        self.is_receiving = self.owes_continue = False

    def _parse(self, data: bytes) -> bytes | None:
        """Give it to the parser; what to go on with, where an offer to upgrade was overlooked."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self.refusal is not None:
                self.put_last(self.refusal)
            elif isinstance(error, httptools.HttpParserCallbackError):
                raise
            elif "Connection: close" not in str(error):  # what follows the last request isn't one
                self.put_last(answers.bad_request(f"cannot read the request: {error}"))
            self.is_done = True
        return None

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self.is_receiving = False
        self.is_timed = False
        self._start()

    def _start(self) -> None:
        self._target = b""
        self._head_bytes = 0
        self._headers = 0
        self._lines: list[Line] = []
        self._read: dict[bytes, bytes] = {}
        self._pieces = []
        self.head = None
        self.upload = None
        self.body_bytes = 0
        self._received = 0

    def _upgrade(self, rest: bytes) -> bytes | None:
        """The parser stops where another protocol is offered. A WebSocket to where there is one is taken; else it is
        read on as if nothing had been offered: callers offer h2c unasked."""
        head = self.head
        assert head is not None
        if self._takes_up(head):
            ready = self._ready[-1]
            ready.request.body = rest
            if len(rest) > SMALL_BYTES:
                self._service.hold(len(rest))
            ready.must_close = True
            self.is_done = True
            return None
        lines = [b"%b %b HTTP/%b\r\n" % (head.method.encode(), self._target, b"1.0" if head.is_http10 else b"1.1")]
        lines += [line for _, line in self._lines]
        lines += [b"%b: %b\r\n" % item for item in self._read.items() if item[0] in NOT_FORWARDED - _OFFERS]
        tokens = [token.strip(b" \t") for token in self._read[b"connection"].split(b",")]
        if kept := [token for token in tokens if token.lower() != b"upgrade"]:
            lines.append(b"connection: %b\r\n" % b", ".join(kept))
        self._begin()
        self._is_alone = False
        return b"".join([*lines, b"\r\n", rest])

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._start()
        self.is_receiving = True
        self.is_timed = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._count_head(len(name) + len(value))
        if self.head is not None:  # trailers end here
            return
        value = value.rstrip(b" \t")
        lower = name.lower()
        note(self._read, lower, value)
        if lower not in NOT_FORWARDED:
            self._lines.append((lower, b"%b: %b\r\n" % (name, value)))

    def on_headers_complete(self) -> None:
        self.is_timed = False
        read = self._read
        authority, path, query = split_target(self._target)
        parser = self._parser
        is_http10 = parser.get_http_version() == "1.0"
        head = self.head = Head(
            parser.get_method().decode(),
            path,
            query,
            read,
            forwarded(self._lines, read.get(b"connection")),
            is_http10=is_http10,
            is_kept=parser.should_keep_alive() and (not is_http10 or _keeps(read.get(b"connection", b"").lower())),
        )
        self._tell_browser(head)
        refusal = _why_not(head, parser.get_http_version(), self._target, authority)
        if refusal is not None:
            self._stop(refusal)
        if authority is not None:
            read[b"host"] = authority  # section 3.2.2: what the header says doesn't count
        found = head.found = self._check(head)
        if parser.should_upgrade():
            if not self._takes_up(head):
                return
            if _has_body(read):
                self._stop(answers.bad_request("cannot open a WebSocket: the request has a body"))
        if isinstance(found, Answer):
            if _has_body(read):
                self._stop(found)  # its body isn't worth reading
            return
        if not head.is_http10 and read.get(b"expect", b"").lower() == b"100-continue":
            self.owes_continue = True
        if found.endpoint.uploads and _is_form(read):
            self._begin_upload(head)
        elif self._is_alone and not read.keys() & _UNUSUAL:
            length = read.get(b"content-length")
            self._service.heads.remember(self._data, head, None if length is None else int(length))

    def on_body(self, data: bytes) -> None:
        count = len(data)
        self._timed += count
        if self._timed >= self._options.body_bytes_per_s * self._options.header_timeout_s:
            self.is_timed = False
        self._idle_bytes = max(0, self._idle_bytes - count * (1 + _FRAMING))
        self.owes_continue = False
        self._received += count
        if self.upload is not None:
            if self._received > self._options.upload_bytes:
                self._stop(answers.upload_too_large(self._options.upload_bytes))
            self.upload.add(data)
            return
        self.body_bytes += count
        self._pieces.append(data)
        if not self._service.hold(count):
            self._stop(answers.too_many_bodies(self._options.bodies_bytes))
        if self.body_bytes > self._options.body_bytes:
            self._stop(answers.body_too_large(self._options.body_bytes))

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        self._is_alone = False
        self.is_receiving = self.owes_continue = False
        head = self.head
        assert head is not None
        if self._parser.should_upgrade() and not self._takes_up(head):
            return  # it isn't complete: see `_upgrade`
        if not self._parser.should_keep_alive():
            head.is_kept = head.is_plain = False  # its trailers may have said so, too
        if self.upload is not None:
            upload, self.upload = self.upload, None
            upload.end()
            return
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        if self.body_bytes <= SMALL_BYTES:
            self._service.hold(-self.body_bytes)
        self.body_bytes = 0  # the request holds them now
        request = Request(head, head.sent_id or self._service.request_id(), body)
        self._ready.append(Ready(request, head.found if isinstance(head.found, Answer) else None))

    def _begin_upload(self, head: Head) -> None:
        length = head.read.get(b"content-length")
        self.upload = Upload(
            head.read[b"content-type"],
            None if length is None else int(length),
            self._source,
            self._service.hold,
            self._options.bodies_bytes,
        )
        request = Request(head, head.sent_id or self._service.request_id(), upload=self.upload)
        self._ready.append(Ready(request, None))

    def _tell_browser(self, head: Head) -> Head:
        """What its answer says of whether a page elsewhere may read it, errors included."""
        cors = self._service.cors
        if cors is not None and b"origin" in self._read:
            head.web = cors.lines(self._read)
            head.is_plain = False
        return head

    def _takes_up(self, head: Head) -> bool:
        """The other protocol that the request offers will be spoken, if the engine agrees."""
        return isinstance(head.found, Found) and head.found.act is Act.SOCKET and not head.is_http10

    def _check(self, head: Head) -> Found | Answer:
        found = self._service.check(head)
        length = head.read.get(b"content-length")
        if isinstance(found, Answer) or length is None:
            return found
        if found.endpoint.uploads and _is_form(head.read):
            limit, too_large = self._options.upload_bytes, answers.upload_too_large
        else:
            limit, too_large = self._options.body_bytes, answers.body_too_large
        return answers.in_shape(too_large(limit), found) if int(length) > limit else found

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._options.header_bytes:
            self._stop(self._too_large())
        if self._headers > _HEADERS:
            self._stop(answers.too_many_headers(_HEADERS))

    def _too_large(self) -> Answer:
        limit = self._options.header_bytes
        return answers.head_too_large(limit) if self.head is None else answers.too_much_framing(limit)

    def _stop(self, answer: Answer) -> NoReturn:
        self.refusal = answer
        raise _Stop


class _Stop(Exception):
    """Raised in the parser's callbacks: nothing more of this connection is read."""


_UNUSUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade"))
_OFFERS = frozenset((b"connection", b"upgrade"))


def _why_not(head: Head, version: str, target: bytes, authority: bytes | None) -> Answer | None:
    """What the parser lets through and RFC 9112 doesn't, or what can't be read here."""
    read = head.read
    if version not in ("1.1", "1.0"):  # section 2.3; "0.9" is a line without a version as well
        return answers.wrong_version(version)
    if head.method == "CONNECT":
        return answers.wrong_method("CONNECT", "/", ("GET", "POST"))
    if b"#" in target or (authority is not None and not target[:8].lower().startswith((b"http://", b"https://"))):
        return answers.bad_request("cannot read the request: its target has a fragment, or is no path")
    host = read.get(b"host")
    if host is None:
        if not head.is_http10:
            return answers.bad_request("cannot read the request: it has no Host")
    elif not _is_host(host) or authority == b"" or not _is_host(authority or b""):
        return answers.bad_request("cannot read the request: its Host is not one name or address")
    coding = read.get(b"transfer-encoding")
    if coding is not None and head.is_http10:  # section 6.1: its framing is faulty
        return answers.bad_request("cannot read the request: HTTP/1.0 has no Transfer-Encoding")
    if coding is not None and coding.lower() != b"chunked":  # section 6.1, and 7 on what is not known
        return answers.unknown_coding(coding.decode("latin-1"))
    if len(read.get(b"content-length", b"")) > _LENGTH_DIGITS:
        return answers.bad_request("cannot read the request: its Content-Length has too many digits")
    if read.get(b"expect", b"").lower() not in (b"", b"100-continue"):
        return answers.unmet_expectation(read[b"expect"].decode("latin-1"))
    return None


_is_host: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Za-z.:%~_-]+\])(?::\d{0,5})?").fullmatch


def _keeps(connection: bytes) -> bool:
    """Of HTTP/1.0 the parser overlooks a close beside a keep-alive, and takes Proxy-Connection for Connection."""
    tokens = [token.strip(b" \t") for token in connection.split(b",")]
    return b"keep-alive" in tokens and b"close" not in tokens


def _has_body(read: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in read or read.get(b"content-length", b"0") != b"0"


def _is_form(read: Mapping[bytes, bytes]) -> bool:
    return read.get(b"content-type", b"")[:20].lower() == b"multipart/form-data;"[:20]

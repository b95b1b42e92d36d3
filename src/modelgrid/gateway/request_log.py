"""A line for each request, where one is asked for: who asked, for what, and what became of it. Never what was said.

The loop only puts what is to be said on a list. A thread writes it, twice a second at most; what comes while the disk
is slow and the list is full is dropped, and how much that was is a line of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from time import time
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.options import GatewayOptions
from modelgrid.gateway.proxies import Proxies
from modelgrid.gateway.request import Head, Record, Request
from modelgrid.telemetry import as_line, open_file, redacted

LINES: Final = 20_000  # that wait to be written
_EVERY_S: Final = 0.5
_SHOWN: Final = 200  # characters of what a caller chose: a path, an id
_CLOSE_S: Final = 2.0
_LEFT: Final = 499  # the status of a request whose caller left, as metrics have it
_TRACE: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

_log = structlog.get_logger()


class _Ended(NamedTuple):
    at: float
    id: bytes
    head: Head
    key: str
    record: Record
    peer: str


def open_log(loop: asyncio.AbstractEventLoop, options: GatewayOptions) -> RequestLog | None:
    """The log that the options ask for."""
    if options.log_requests == "off" or options.request_log is None:
        return None
    return RequestLog(
        loop,
        open_file(options.request_log),
        Proxies(options.trusted_proxies),
        of_all=options.log_requests == "all",
        as_json=options.log_format == "json",
    )


class RequestLog:
    """One worker's. `write` takes lines, with their ends; it is called by one thread, and may take its time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[str], object],
        proxies: Proxies,
        *,
        of_all: bool = True,
        as_json: bool = False,
        lines: int = LINES,
    ) -> None:
        self._loop = loop
        self._write = write
        self._proxies = proxies
        self._of_all = of_all
        self._as_json = as_json
        self._lines = lines
        self._waiting: list[_Ended] = []
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "request-log")

    def ended(self, request: Request, peer: str, *, is_left: bool = False) -> None:
        """A request by a connection from `peer` has ended; or it `is_left`, for the connection has."""
        record = request.record
        if record is None:
            record = Record(_LEFT if is_left else 0)
        if not self._of_all and record.status < 400 and not record.code:
            return
        if len(self._waiting) >= self._lines:
            self._dropped += 1
            return
        head = request.head
        caller = head.caller
        self._waiting.append(_Ended(time(), request.id, head, "" if caller is None else caller.name, record, peer))
        if self._timer is None:
            self._timer = self._loop.call_later(_EVERY_S, self._flush)

    def close(self) -> None:
        """Write what waits; a disk that doesn't take it has had its time."""
        if self._timer is not None:
            self._timer.cancel()
        last = self._thread.submit(self._write_down, self._waiting, self._dropped)
        self._waiting, self._dropped = [], 0
        self._thread.shutdown(wait=False)
        try:
            last.result(_CLOSE_S)
        except (OSError, TimeoutError) as error:
            _log.error("request log not written", why=str(error))

    def _flush(self) -> None:
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self._timer = self._loop.call_later(_EVERY_S, self._flush)
            return
        if self._writing is not None and (error := self._writing.exception()) is not None:
            _log.error("request log not written", why=str(error))
        waiting, self._waiting = self._waiting, []
        dropped, self._dropped = self._dropped, 0
        self._writing = self._thread.submit(self._write_down, waiting, dropped)

    # What the thread does.

    def _write_down(self, ended: list[_Ended], dropped: int) -> None:
        events = [self._event(one) for one in ended]
        if dropped:
            events.append({"timestamp": _stamp(time()), "level": "error", "event": "request.dropped", "lines": dropped})
        if events:
            line = _json if self._as_json else _text
            self._write("".join([f"{line(event)}\n" for event in events]))

    def _event(self, one: _Ended) -> dict[str, Any]:
        """Names and values; what there is nothing of is left out."""
        record, head = one.record, one.head
        values = {
            "id": _chosen(one.id.decode("latin-1")) if head.sent_id else one.id.decode(),
            "address": self._proxies.caller(one.peer, head.read),
            "key": one.key,
            "method": head.method,
            "path": _path(head),
            "operation": record.operation,
            "model": record.model,
            "status": record.status,
            "code": record.code,
            "duration_s": round(record.duration_s, 6),
            "ttft_s": round(record.first_byte_s, 6),
            "tokens_in": record.input,
            "tokens_out": record.output,
            "tokens_cached": record.cached,
            "replica": record.replica,
            "retries": record.retries,
            "trace": _trace(head),
        }
        level = "error" if record.status >= 500 or (record.code and record.status < 400) else "info"
        said = {name: value for name, value in values.items() if value}
        return {"timestamp": _stamp(one.at), "level": level, "event": "request", **said}


def _path(head: Head) -> str:
    """As our table has it, without what stands in it; one that isn't there is the caller's, as far as it may be shown.
    A query is never in it."""
    found = head.found
    return found.endpoint.path if isinstance(found, Found) else _chosen(head.path)


def _chosen(text: str) -> str:
    """What a caller made up: it may be long, or a key in the wrong place."""
    return redacted(text[:_SHOWN])


def _trace(head: Head) -> str:
    match = _TRACE.fullmatch(head.read.get(b"traceparent", b""))
    return "" if match is None else match[1].decode()


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(event: dict[str, Any]) -> str:
    return as_line(None, "", event)


def _json(event: dict[str, Any]) -> str:
    return msgspec.json.encode(event).decode()

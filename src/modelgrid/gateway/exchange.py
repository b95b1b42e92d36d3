"""What is asked of an engine and what it answers, between the connection to it and whoever asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from modelgrid.gateway.answers import status_line


class EngineHead:
    """The head of an engine's answer, without what differs between answers that repeat it: the length."""

    __slots__ = (
        "ends_by_close",
        "has_id",
        "is_encoded",
        "is_kept",
        "is_sized",
        "lines",
        "says_when",
        "status",
        "type",
        "whole",
    )

    def __init__(
        self,
        status: int,
        lines: bytes,
        *,
        type: bytes = b"",
        is_encoded: bool = False,
        has_id: bool = False,
        says_when: bool = False,
        is_sized: bool = False,
        is_kept: bool = False,
        ends_by_close: bool = False,
    ) -> None:
        self.status = status
        self.lines = lines  # the headers that go on
        self.type = type  # the media type, in lower case, without parameters
        self.is_encoded = is_encoded  # it has a Content-Encoding
        self.has_id = has_id  # it has an X-Request-Id
        self.says_when = says_when  # it has a Retry-After
        self.is_sized = is_sized  # its length is told beforehand
        self.ends_by_close = ends_by_close  # so that an answer that is cut can't be told from one that is whole
        self.is_kept = is_kept  # the connection can carry another request after it
        # How an answer begins for a caller of HTTP/1.1 that keeps its connection, up to the length.
        self.whole = b"%b%bcontent-length: " % (status_line(status), lines)

    @property
    def is_events(self) -> bool:
        """It is a stream of server-sent events that can be read, and added to."""
        return self.type == b"text/event-stream" and not self.is_encoded


@dataclass(frozen=True, slots=True)
class Loss:
    """Why an answer won't come, or won't end."""

    outcome: Literal["refused", "broke", "timed_out"]
    why: str  # continues "the engine …"
    setting: str = ""  # a larger one of which would have given the engine more time
    is_stale: bool = False  # a kept connection that the engine closed as we used it: says nothing of its health


class Exchange(Protocol):
    """Who asked, and gets the answer: `on_head` once, then `on_body` until `ended`; or `on_lost` at any time.

    Once `on_body` says that it ended, or `on_whole` or `on_lost` was called, the connection is no longer the
    exchange's. Chunks come by `on_chunks`, as they are on the wire, while `takes_chunks`.
    """

    takes_chunks: bool

    def on_whole(self, head: EngineHead, body: bytes) -> None:
        """All of an answer at once, instead of `on_head` and `on_body`."""
        ...

    def on_head(self, head: EngineHead, length: int | None) -> None: ...
    def on_body(self, data: bytes, ended: bool) -> None: ...
    def on_chunks(self, data: bytes) -> None:
        """Whole chunks, none of them the last."""
        ...

    def on_switch(self, lines: bytes, rest: bytes) -> bool:
        """The engine takes up another protocol; `lines` are the headers of its answer, `rest` what came behind them.
        False where that wasn't asked for; else this connection is a tunnel's (see `join`)."""
        ...

    def on_defect(self) -> None:
        """An exception came out of one of these methods. Nothing more follows."""
        ...

    def on_room(self) -> None:
        """More of the request's body can be sent, after `Upstream.write` said to wait."""
        ...

    def on_lost(self, loss: Loss) -> None: ...


class EngineTunnel(Protocol):
    """What a connection becomes once the engine has taken up another protocol."""

    def from_engine(self, data: bytes) -> None: ...
    def engine_is_full(self) -> None: ...
    def engine_has_room(self) -> None: ...
    def engine_ended(self) -> None: ...

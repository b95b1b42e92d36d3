"""What a gateway worker is told at its start, and every limit that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from modelgrid.config import CorsConfig, TlsConfig

ATTEMPTS: Final = 5  # how often one request is sent, or tried to be, before its caller is told what happened
PARSED_BYTES: Final = 4 << 10  # parsed at once where requests may begin, so few are parsed ahead of their turn
PIPELINED_BYTES: Final = 64 << 10  # received ahead of their turn; who sends more is dropped
SMALL_BYTES: Final = 16 << 10  # a body up to this isn't counted among those that are held
PROBES_S: Final = (0.01, 0.02, 0.07, 0.2)  # between signs of life to a caller who says that it sends no more
STILL_S: Final = 0.03  # an answer to such a caller that stands still for so long goes to nobody
STALL_PROBES_S: Final = (0.05, 0.4, 2.0, 10.0)  # the same to a caller whose upload isn't read
LINGER_S: Final = 2.0  # for a caller to read why it was refused while it still sends
HEAD_BYTES: Final = 64 << 10  # of an engine's headers, and of what else it sends without a byte of a body
CALLER_HEADS: Final = 1024  # different heads of callers that are remembered
ENGINE_HEADS: Final = 256  # different heads of engines that are remembered
UPSTREAM_IDLE: Final = 256  # kept connections to one engine
UPSTREAM_IDLE_S: Final = 60.0  # how long they are kept
LOAD_DELAY_S: Final = 0.02  # changes of load within this time are one message
LINK_RETRY_S: Final = (0.05, 1.0)  # first and longest pause between attempts to reach the controller
LINK_BACKLOG_BYTES: Final = 1 << 20  # of messages that the controller doesn't read; more are dropped
TABLE_BYTES: Final = 256 << 20  # of one routing table
EVENT_BYTES: Final = 1 << 20  # of one server-sent event that has to be read (the plain-text endpoint)
SIGN_CHARACTERS: Final = 300  # of a sign to who waits, beside the model's name
WHOLE_BYTES: Final = 4 << 20  # of an answer that has to be read whole, an error or no stream (the same endpoint)


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """One worker's options. Durations are seconds."""

    worker: str  # its name, for the controller and the log
    link_socket: Path  # where the controller listens
    table_file: Path  # the last routing table, for a start while the controller is away
    control_socket: Path | None = None  # where the controller answers requests
    ledger: Path | None = None  # counts that workers share; None: it counts alone
    row: int = 0  # its place there
    workers: int = 1  # that take connections from one socket
    needs_key: bool = False  # a table without keys lets nobody in, instead of anybody
    body_bytes: int = 64 << 20  # one request's body; more is answered with 413
    upload_bytes: int = 2 << 30  # one upload, which is relayed while it comes; more is answered with 413
    bodies_bytes: int = 1 << 30  # all bodies that the worker holds; more are answered with 503
    header_bytes: int = 64 << 10  # one request's line and headers; more is answered with 431
    connections: int = 4096  # callers' connections; more are answered with 503
    connect_timeout_s: float = 5.0  # to reach an engine
    first_byte_timeout_s: float = 600.0  # until the first byte of an engine's body
    idle_timeout_s: float = 300.0  # between bytes of an engine's body, and for a caller that doesn't read
    progress_after_s: float = 1.0  # of waiting, before a stream's caller who asks for signs of it gets the first
    progress_every_s: float = 5.0  # between two of them
    keep_alive_s: float = 75.0  # a caller's connection between requests
    header_timeout_s: float = 30.0  # for a request's head, and what a body's slowest rate is averaged over
    body_bytes_per_s: int = 256  # the slowest rate of a body; a slower one is answered with 408
    grace_s: float = 30.0  # for what is in flight at SIGTERM
    tls: TlsConfig | None = None
    cors: CorsConfig | None = None
    trusted_proxies: tuple[str, ...] = ()
    log_requests: Literal["off", "errors", "all"] = "off"
    log_format: Literal["text", "json"] = "text"
    request_log: Path | None = None  # the file that they are logged in

"""Logging: structlog events and other libraries' warnings, through one redaction, to a file and to people."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import structlog

from modelgrid.telemetry.lines import as_json, as_line
from modelgrid.telemetry.redact import redact_fields

_NAME = "modelgrid"
_FILE_BYTES = 16 * 2**20
_OLDER_FILES = 3


def set_up_logging(file: Path | None, *, console: bool, json: bool = False) -> None:
    """Send what `structlog.get_logger()` says to `file`, to stderr where `console`, or nowhere.

    `file` belongs to this process alone: it is rotated by size, which two processes can't do to one file. A
    terminal gets lines for people, everything else ``key=value``, or JSON objects with `json`. Other libraries'
    loggers come along from WARNING on. May be called again; the last call holds.
    """
    renderer = as_json if json else as_line
    handlers: list[logging.Handler] = []
    if file is not None:
        handlers.append(_with(_file_handler(file), renderer))
    if console:
        is_terminal = sys.stderr.isatty() and not json
        handlers.append(_with(_StderrHandler(), _for_people() if is_terminal else renderer))
    _attach(handlers or [logging.NullHandler()])
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=_logger,
        cache_logger_on_first_use=False,  # loggers of modules live longer than a set-up
    )


def _logger(*_names: object) -> logging.Logger:
    """One logger for all of modelgrid: a module run as ``__main__`` says as much as one that is imported."""
    return logging.getLogger(_NAME)


def _attach(handlers: Sequence[logging.Handler]) -> None:
    root, ours = logging.getLogger(), logging.getLogger(_NAME)
    for old in list(root.handlers):
        if getattr(old, "is_modelgrid", False):
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        handler.is_modelgrid = True  # type: ignore[attr-defined]  # how the next call knows it
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(True)


def _with(handler: logging.Handler, renderer: structlog.types.Processor) -> logging.Handler:
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(["request_id"]), _foreign_event],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _milliseconds,
                structlog.processors.format_exc_info,
                redact_fields,
                renderer,
            ],
            use_get_message=True,
        )
    )
    return handler


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at the moment."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)


def _file_handler(file: Path) -> logging.Handler:
    file.parent.mkdir(parents=True, exist_ok=True)
    return _PrivateFile(file, maxBytes=_FILE_BYTES, backupCount=_OLDER_FILES, encoding="utf-8", errors="replace")


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating file that only its owner reads."""

    def _open(self) -> Any:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return super()._open()


def _foreign_event(_logger: Any, _method: str, event: Any) -> Any:
    """Another library's line: its logger is the event, its text a field."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": record.name, "message": event["event"]}


def _milliseconds(_logger: object, _method: str, event: Any) -> Any:
    stamp: str = event["timestamp"]
    event["timestamp"] = stamp[:23] + "Z" if "." in stamp else stamp
    return event


def _for_people() -> structlog.types.Processor:
    has_colors = not os.environ.get("NO_COLOR")
    return structlog.dev.ConsoleRenderer(
        colors=has_colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, sort_keys=False
    )
